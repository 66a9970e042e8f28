//! Files as a description: each format opened below a root is what its reader gives, whatever is asked of it; and what a
//! description cannot be.

// A stretch of places is a range, and often there is one.
#![allow(missing_docs, clippy::single_range_in_vec_init)]

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_data::{Csv, DataError, Dataset, FileOpener, Files, ImageFolder, Images, Source, idx, mnist, npz, order};
use thalweg_graph::Array;
use thalweg_graph::DType::F32;
use thalweg_runtime::Cursors;
use thalweg_runtime::checkpoint::Root;
use thalweg_runtime::source::{Reader, SourceSpec, open};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn built_in(name: &str) -> Option<Result<Dataset, DataError>> {
    (name == "three").then(|| Dataset::new([("x", Array::from_slice(&[3], &[1f32, 2.0, 3.0]))]))
}

fn opened(spec: &SourceSpec) -> Result<Arc<dyn Reader>, String> {
    let root = Root::parse(&format!("data={}", fixtures().display())).expect("it is there");
    open(spec, &[root], Some(&FileOpener::new(built_in)))
}

/// Every field of some places of a shuffled pass, and each field alone.
#[track_caller]
fn is(files: Files, source: &dyn Source) {
    let reader = opened(&files.spec().expect("it is said how")).expect("it is sound");
    let (facts, fields) = (reader.facts(), source.fields());
    assert_eq!((facts.len as usize, facts.fields.len()), (source.len(), fields.len()));
    assert_eq!(
        facts.fingerprint,
        source.fingerprint().expect("it is sound"),
        "a loader of it goes on where this stood"
    );
    let n = facts.len;
    for (seed, pass) in [(None, 0), (Some(3), 1), (Some(3), 0), (Some(4), 0), (Some(3), 1)] {
        let order = seed.map_or((0..source.len()).collect(), |seed| order::shuffled(seed, pass, source.len()));
        for places in [&[0..n][..], &[0..1, n - 1..n], &[n / 2..n]] {
            let rows: Vec<usize> = places.iter().cloned().flatten().map(|place| order[place as usize]).collect();
            let want = source.read(&rows).expect("it is sound");
            let all: Vec<usize> = (0..fields.len()).collect();
            let arrays = reader.read(seed, pass, places, &all).expect("it is sound");
            assert_eq!(arrays.len(), fields.len());
            for (i, (name, array)) in want.feeds().into_iter().enumerate() {
                assert_eq!((&arrays[i], &facts.fields[i].0[..]), (array, name));
                assert_eq!(reader.read(seed, pass, places, &[i]).expect("it is sound").pop().as_ref(), Some(array));
            }
        }
    }
}

#[test]
fn each_format_is_what_its_reader_gives() {
    let file = |name: &str| fixtures().join(name);
    let (train, test) = mnist(file("mnist")).expect("it is sound");
    is(Files::below("data", "mnist").mnist_train(), &train);
    is(Files::below("data", "mnist").mnist_test(), &test);
    let images = idx::read(file("mnist/train-images-idx3-ubyte.gz")).expect("it is sound");
    let one = Dataset::new([("pixels", images)]).expect("it is sound");
    is(Files::below("data", "mnist/train-images-idx3-ubyte.gz").array("pixels"), &one);
    is(Files::below("data", "mnist").arrays([("pixels", "train-images-idx3-ubyte.gz")]), &one);
    let images = Images::rgb().resize(5, 6);
    let pictures = ImageFolder::open(file("pictures"), images).expect("it is sound");
    is(Files::below("data", "pictures").images(images), &pictures);
    is(Files::built_in("three"), &built_in("three").expect("it is there").expect("it is sound"));
}

#[test]
fn fields_are_fed_under_other_names() {
    let (train, _) = mnist(fixtures().join("mnist")).expect("it is sound");
    let files = Files::below("data", "mnist").mnist_train().input("y", "label");
    let reader = opened(&files.spec().expect("it is said how")).expect("it is sound");
    assert_eq!(reader.facts().fields.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["y"]);
    assert_ne!(reader.facts().fingerprint, train.fingerprint().expect("it is sound"));
    let want = train.select(&[1]).get("label").cloned();
    assert_eq!(reader.read(None, 0, &[1..2], &[0]).expect("it is sound").pop(), want);
}

#[test]
fn what_cannot_be_said_or_read_is_an_error() {
    for (path, says) in [
        ("a.csv", "`a.csv` is a table: say which columns to read"),
        ("a.npy", "`a.npy` is one array: say which input it is"),
        ("pictures", "`pictures` is not called .npz: say how to read it"),
    ] {
        let said = Files::below("data", path).spec().expect_err("it is not said how").to_string();
        assert!(said.contains(says), "{said}");
    }
    let spec = |path: &str, how: &str| SourceSpec { root: "data".into(), path: path.into(), how: how.into() };
    let of = |files: Files| files.spec().expect("it is said how");
    let csv = Csv::new().number("x", F32, "a");
    for (spec, says) in [
        (spec("mnist", ""), "this version does not know how to read it"),
        (spec("mnist", "{\"format\":\"parquet\"}"), "does not know how to read it: unknown variant `parquet`"),
        (spec("mnist", "{\"format\":\"npz\",\"limits\":9}"), "does not know how to read it: unknown field `limits`"),
        (spec("mnist", "{\"format\":{\"mnist\":\"../t\"}}"), "MNIST has `train` and `t10k`, and no `../t`"),
        (of(Files::below("data", "none.npz")), "none.npz: No such file"),
        (of(Files::below("data", "mnist").arrays([("x", "no.npy")])), "no.npy: No such file"),
        (of(Files::below("data", "mnist").arrays([("x", "../f4.npy")])), "`../f4.npy` is no name below a root"),
        (of(Files::below("data", "mnist").arrays([("x", "/etc/passwd")])), "`/etc/passwd` is no name below a root"),
        (of(Files::below("data", "mnist").csv(csv)), "mnist"),
        (of(Files::below("data", "mnist").images(Images::grey().resize(0, 4))), "cannot be made 0 × 4"),
        (of(Files::below("data", "mnist").mnist_train().input("a", "label").input("a", "image")), "fed by two fields"),
        (of(Files::built_in("four")), "no data set `four` comes with this program"),
    ] {
        let said = opened(&spec).err().expect("it cannot be read");
        assert!(said.contains(says), "{said}");
    }
    // What files may ask for is the reader's own: it is not sent.
    let limits = thalweg_data::Limits { unpacked_bytes: u64::MAX, pixels: u64::MAX };
    let sent = of(Files::below("data", "p").images(Images::rgb().limits(limits)));
    assert_eq!(sent, of(Files::below("data", "p").images(Images::rgb())));
}

/// A picture costs its decoding only where it is taken; links lead nowhere else.
#[test]
fn labels_cost_no_pictures_and_links_stay_below_the_root() {
    let folder = std::env::temp_dir().join(format!("thalweg-files-{}", std::process::id()));
    let class = folder.join("root/pictures/cat");
    std::fs::create_dir_all(&class).expect("room");
    std::fs::create_dir_all(folder.join("else/dog")).expect("room");
    let first = fixtures().join("pictures/cat/a.png");
    std::fs::copy(&first, class.join("a.png")).expect("room");
    let images = Images::grey().resize(4, 4);
    let root = Root::parse(&format!("data={}", folder.join("root").display())).expect("it is there");
    let files = Files::below("data", "pictures").images(images).spec().expect("it is said how");
    let opener = FileOpener::new(built_in);
    let reader = open(&files, std::slice::from_ref(&root), Some(&opener)).expect("it is sound");
    let whole = ImageFolder::open(folder.join("root/pictures"), images).expect("it is sound");
    assert_eq!(reader.facts().fingerprint, whole.fingerprint().expect("it is sound"));
    std::fs::write(class.join("a.png"), "no picture").expect("room");
    let label = reader.read(None, 0, &[0..1], &[1]).expect("a label costs no picture");
    assert_eq!(label, [Array::from_slice(&[1], &[0i32])]);
    let said = reader.read(None, 0, &[0..1], &[0]).expect_err("no picture");
    assert!(said.contains("a.png: ") && said.contains("neither PNG nor JPEG"), "{said}");
    for (link, to) in [("pictures/cat/b.png", first.clone()), ("pictures/dog", folder.join("else/dog"))] {
        std::os::unix::fs::symlink(&to, folder.join("root").join(link)).expect("room");
        let said = open(&files, std::slice::from_ref(&root), Some(&opener)).err().expect("it leads out");
        assert!(said.contains("leads out of the root"), "{said}");
        std::fs::remove_file(folder.join("root").join(link)).expect("it is there");
    }
    std::fs::remove_dir_all(&folder).expect("it was there");
}

/// An archive of NumPy's, or some of its arrays.
#[test]
fn archives_are_read() {
    for name in ["plain.npz", "packed.npz"] {
        let arrays = npz::read(fixtures().join(name)).expect("it is sound");
        let (first, array) = arrays.into_iter().find(|(_, a)| a.shape().len() > 1).expect("an array");
        let files = Files::below("data", name).input("x", first).spec().expect("it is said how");
        let reader = opened(&files).expect("it is sound");
        let n = reader.facts().len;
        assert_eq!((n, reader.facts().fields.len()), (array.shape()[0], 1));
        assert_eq!(reader.read(None, 0, &[0..n], &[0]).expect("it is sound"), [array]);
    }
}

/// Whatever is set: the same samples in the same steps, and a cursor that stands at the same place.
#[test]
fn a_description_is_of_what_a_loader_reads() {
    let (train, _) = mnist(fixtures().join("mnist")).expect("it is sound");
    let files = Files::below("data", "mnist").mnist_train();
    let mut session = thalweg_runtime::Session::new(nothing(), Box::new(thalweg_runtime::ReferenceDevice::default()))
        .expect("there is nothing that could be wrong");
    session.set_opener(Arc::new(FileOpener::new(built_in)));
    let root = Root::parse(&format!("data={}", fixtures().display())).expect("it is there");
    session.add_data_root(root).expect("all devices are here");
    let opened = session.open_source(&files.spec().expect("it is said how")).expect("it is sound");
    let reader = self::opened(opened.spec()).expect("it is sound");
    for (batch, drop_last, seed) in
        [(2, false, None), (2, false, Some(7)), (2, true, Some(7)), (1, true, None), (100, false, Some(1))]
    {
        let (mut loader, mut described) = (train.batch(batch).epochs(3), files.batch(batch).epochs(3));
        if let Some(seed) = seed {
            (loader, described) = (loader.shuffle(seed), described.shuffle(seed));
        }
        if drop_last {
            (loader, described) = (loader.drop_last(), described.drop_last());
        }
        let (here, there) = (Cursors::default(), Cursors::default());
        let batches: Vec<_> = described.resume(&opened, &there).expect("it fits").collect();
        assert_eq!(described.iter(&opened).expect("it fits").steps_per_pass(), loader.steps_per_pass());
        let read: Vec<Dataset> = loader.resume(&here).map(|batch| batch.expect("it is sound")).collect();
        assert_eq!(batches.len(), read.len());
        for (i, (batch, want)) in batches.iter().zip(&read).enumerate() {
            let s = batch.samples();
            let arrays = reader.read(s.seed, s.pass, &[s.first..s.first + s.count], &[0, 1]).expect("it is sound");
            assert_eq!(arrays.iter().collect::<Vec<_>>(), want.feeds().into_iter().map(|(_, a)| a).collect::<Vec<_>>());
            assert_eq!(batch.next(), batches.get(i + 1).map(|next| next.samples()), "what is announced comes");
        }
        here.commit();
        there.commit();
        assert!(here.get("data").is_some() && here.get("data") == there.get("data"));
    }
    let empty = files.batch(0).iter(&opened).expect_err("no samples").to_string();
    assert!(empty.contains("a batch needs samples"), "{empty}");
}

fn nothing() -> thalweg_graph::Graph {
    let g = thalweg_ops::Graph::new("nothing");
    let x = g.input("x", F32, [1]);
    g.program("same").outputs([(x + x).named("twice")]);
    g.finish().expect("no mistakes")
}
