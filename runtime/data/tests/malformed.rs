//! Files that are not what they should be: the error names the file, the place, what was expected and found, and what to
//! do. Whole texts, since the text is what the reader of an error has.

#![allow(missing_docs)]

use std::path::PathBuf;

use thalweg_data::{Csv, DataError, ImageFolder, Images, Limits, idx, mnist, npy, npz};
use thalweg_graph::DType::{Bool, F32, I32, U8};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("this is sound")
}

/// The text of an error, with the folder of the fixtures left out.
#[track_caller]
fn refused<T>(result: Result<T, DataError>) -> String {
    let Err(error) = result else { panic!("this should be refused") };
    error.to_string().replace(&format!("{}/", fixture("").display().to_string().trim_end_matches('/')), "")
}

/// Compares each text; `BLESS=1` prints what they are instead.
#[track_caller]
fn check(cases: &[(String, &str)]) {
    if std::env::var_os("BLESS").is_some() {
        cases.iter().for_each(|(got, _)| println!("{got:?},"));
        return;
    }
    for (i, (got, want)) in cases.iter().enumerate() {
        assert_eq!(got, want, "case {i}");
    }
}

#[test]
fn idx() {
    let parse = |bytes: &[u8]| refused(idx::parse("a.idx", bytes, &Limits::default()));
    let small = Limits { unpacked_bytes: 1000, ..Limits::default() };
    let gz = bytes_of("mnist/train-images-idx3-ubyte.gz");
    let mut flipped = gz.clone();
    flipped[40] ^= 1;
    check(&[
        (parse(&[0, 0, 8]), "a.idx: byte 3: an IDX file begins with four bytes, and this one has 3"),
        (
            parse(b"PK\x03\x04"),
            "a.idx: byte 0: an IDX file begins with two zero bytes, found 50 4b: this is some other format",
        ),
        (
            parse(&[0, 0, 7, 1, 0, 0, 0, 1, 5]),
            "a.idx: byte 2: no element type has the code 07; expected 08 (u8), 09 (i8), 0b (i16), 0c (i32), 0d (f32), 0e (f64)",
        ),
        (
            parse(&[0, 0, 8, 3, 0, 0, 0, 1]),
            "a.idx: byte 4: the extents of 3 axes need 12 bytes, and the file has 4 more: it was cut short",
        ),
        (
            parse(&[0, 0, 8, 1, 0, 0, 0, 3, 1, 2]),
            "a.idx: byte 8: 3 elements take 3 bytes, and the file has 2 more: it was cut short: fetch it again",
        ),
        (
            parse(&[0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3, 4]),
            "a.idx: byte 8: 3 elements take 3 bytes, and the file has 4 more: it is damaged, or not IDX",
        ),
        (
            parse(&[&[0, 0, 14, 4][..], &[255; 16], &[1; 8]].concat()),
            "a.idx: byte 4: the header promises 4294967295 × 4294967295 × 4294967295 × 4294967295 elements, beyond the limit of 8589934592 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            parse(&[&[0, 0, 14, 4][..], &[255; 12], &[0; 4]].concat()),
            "a.idx: byte 4: the header promises 4294967295 × 4294967295 × 4294967295 × 0 elements, beyond the limit of 8589934592 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            refused(idx::parse("a.idx", &[0, 0, 8, 2, 0, 0, 1, 0, 0, 0, 1, 0], &small)),
            "a.idx: byte 4: the header promises 256 × 256 elements, beyond the limit of 1000 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            parse(&gz[..gz.len() - 12]),
            "a.idx: the gzip data is damaged or cut short (incomplete deflate stream): fetch the file again",
        ),
        (
            parse(&flipped),
            "a.idx: the gzip data is damaged or cut short (corrupt gzip stream does not have a matching checksum): fetch the file again",
        ),
        (refused(idx::read(fixture("none.idx"))), "none.idx: No such file or directory (os error 2)"),
    ]);
}

/// A header behind its magic and length.
fn npy_of(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn npy() {
    let parse = |header: &str, data: &[u8]| refused(npy::parse("a.npy", &npy_of(header, data), &Limits::default()));
    let raw = |bytes: &[u8]| refused(npy::parse("a.npy", bytes, &Limits::default()));
    let of = |descr: &str, shape: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let read = |name: &str| refused(npy::read(fixture(name)));
    check(&[
        (raw(b"\x93NUMPZ\x01\x00"), "a.npy: byte 0: does not begin with \\x93NUMPY: this is not a .npy array"),
        (raw(b"\x93NUMPY\x01"), "a.npy: byte 7: ends within its header: it was cut short"),
        (raw(b"\x93NUMPY\x04\x00\x00\x00"), "a.npy: byte 6: format version 4.0; this build reads 1.0 to 3.0"),
        (
            raw(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
            "a.npy: byte 10: the header is said to take 4294967295 bytes, and the file has 2 more",
        ),
        (
            parse(&of("<f4", "(3,)"), &[0; 11]),
            "a.npy: byte 67: 3 elements take 12 bytes, and 11 follow the header: it was cut short",
        ),
        (
            parse(&of("<f4", "(3,)"), &[0; 13]),
            "a.npy: byte 67: 3 elements take 12 bytes, and 13 follow the header: it holds more than one array, or is damaged",
        ),
        (
            parse(&of("<f4", "(4294967296, 4294967296)"), &[]),
            "a.npy: byte 60: the header promises 4294967296 × 4294967296 elements of f32, beyond the limit of 8589934592 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            parse(&of("<f4", "(1000000000000, 0)"), &[]),
            "a.npy: byte 60: the header promises 1000000000000 × 0 elements of f32, beyond the limit of 8589934592 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            parse(&of("<f4", "(0, 1099511627776, 1099511627776)").replace("False", "True"), &[]),
            "a.npy: byte 59: the header promises 0 × 1099511627776 × 1099511627776 elements of f32, beyond the limit of \
             8589934592 bytes: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            parse(&of("<f4", "(99999999999999999999,)"), &[]),
            "a.npy: byte 61: an extent should be a number, found `99999999999999999999`",
        ),
        (parse(&of("<f4", "(-1,)"), &[]), "a.npy: byte 61: an extent should be a number, found `-1`"),
        (parse(&of("<f4", "(1 2)"), &[]), "a.npy: byte 63: the shape should go on with `,` or `)` here"),
        (parse(&of("f4", "()"), &[]), "a.npy: byte 20: `f4` is no element type: it should begin with <, > or |"),
        (parse(&of("|b1", "(2,)"), &[1, 2]), "a.npy: byte 68: a truth value is 0 or 1, found 2"),
        (
            parse("{'descr': '<f4', 'shape': ()}", &[0; 4]),
            "a.npy: byte 39: the header lacks one of descr, fortran_order and shape",
        ),
        (
            parse("{'descr': '<f4, 'shape': ()}", &[0; 4]),
            "a.npy: byte 27: the header should go on with `,` or `}` here",
        ),
        (
            parse("{'descr': '<f4'; 'shape': ()}", &[0; 4]),
            "a.npy: byte 25: the header should go on with `,` or `}` here",
        ),
        (parse("{'fortran_order': maybe}", &[0; 4]), "a.npy: byte 28: fortran_order should be True or False"),
        (parse("{'colour': 'red'}", &[0; 4]), "a.npy: byte 21: `colour` is no key of a .npy header"),
        (parse("{} x", &[0; 4]), "a.npy: byte 13: something follows the header's `}`"),
        (
            read("objects.npy"),
            "objects.npy: byte 20: the elements are pickled Python objects, which would be run to be read: save numbers, as with .astype('float32')",
        ),
        (
            read("records.npy"),
            "records.npy: byte 20: the elements are records of several fields: save one array for each field",
        ),
        (
            read("complex.npy"),
            "complex.npy: byte 20: `<c8` is not an element type of ours (b1, i1 to i8, u1 to u8, f2, f4, f8): convert it with .astype(..)",
        ),
        (
            read("words.npy"),
            "words.npy: byte 20: `<U2` is not an element type of ours (b1, i1 to i8, u1 to u8, f2, f4, f8): convert it with .astype(..)",
        ),
        (
            read("u8_too_large.npy"),
            "u8_too_large.npy: byte 136: 9223372036854775808 is too large for i64, as which uint64 is read",
        ),
    ]);
}

#[test]
fn npz() {
    let (plain, packed) = (bytes_of("plain.npz"), bytes_of("packed.npz"));
    let parse = |bytes: &[u8]| refused(npz::parse("a.npz", bytes, &Limits::default()));
    // Puts bytes at a place counted from the first or last occurrence of a signature.
    let with = |bytes: &[u8], signature: &[u8], last: bool, at: usize, new: &[u8]| {
        let mut out = bytes.to_vec();
        let mut found = (0..out.len() - 4).filter(|i| out[*i..].starts_with(signature));
        let begin = if last { found.next_back() } else { found.next() }.unwrap();
        out[begin + at..begin + at + new.len()].copy_from_slice(new);
        parse(&out)
    };
    let (local, entry, end) = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06");
    let small = Limits { unpacked_bytes: 200, ..Limits::default() };
    let mut renamed = plain.clone();
    (0..renamed.len() - 5).filter(|i| plain[*i..].starts_with(b"y.npy")).for_each(|i| renamed[i] = b'x');
    let mut foreign = plain.clone();
    (0..foreign.len() - 5).filter(|i| plain[*i..].starts_with(b"y.npy")).for_each(|i| foreign[i + 4] = b'z');
    check(&[
        (parse(b""), "a.npz: has no zip directory at its end: it is no .npz archive, or was cut short"),
        (
            parse(&plain[..plain.len() - 1]),
            "a.npz: has no zip directory at its end: it is no .npz archive, or was cut short",
        ),
        (
            with(&plain, end, true, 10, &[9, 0]),
            "a.npz: byte 568: an entry of the directory should be here: the archive is damaged or cut short",
        ),
        (
            with(&plain, end, true, 16, &[0, 0, 0, 1]),
            "a.npz: byte 16777216: an entry of the directory should be here: the archive is damaged or cut short",
        ),
        (
            with(&plain, end, true, 16, &[255; 4]),
            "a.npz: byte 548: the end of the directory should be here: the archive is damaged or cut short",
        ),
        (
            with(&plain, entry, false, 8, &[1, 0]),
            "a.npz: byte 466: member `x.npy` is encrypted: save it without a password",
        ),
        (
            with(&plain, entry, false, 10, &[14, 0]),
            "a.npz: member `x.npy`, byte 0: is compressed by method 14: save it with np.savez_compressed",
        ),
        (
            with(&plain, entry, false, 20, &[255, 255, 255, 127]),
            "a.npz: member `x.npy`, byte 0: takes 2147483647 bytes, and the file has 535 more: it was cut short",
        ),
        (
            with(&plain, entry, false, 24, &[255, 255, 255, 255]),
            "a.npz: byte 466: this entry of the directory lacks its 64-bit sizes",
        ),
        (
            with(&plain, entry, false, 24, &[255, 255, 255, 127]),
            "a.npz: member `x.npy`, byte 0: unpacks to 188 bytes, not the 2147483647 it promises",
        ),
        (with(&plain, entry, false, 28, &[255, 255]), "a.npz: byte 466: this entry of the directory is cut short"),
        (
            with(&plain, entry, true, 42, &[1, 0]),
            "a.npz: byte 1: a member should be here: the archive is damaged or cut short",
        ),
        (
            with(&plain, local, false, 0, b"PK\x03\x05"),
            "a.npz: byte 0: a member should be here: the archive is damaged or cut short",
        ),
        (
            with(&plain, entry, false, 16, &[0; 4]),
            "a.npz: member `x.npy`, byte 0: is damaged: its checksum is aa3a526b, not 00000000",
        ),
        (
            with(&packed, local, false, 60, &[255; 8]),
            "a.npz: member `x.npy`, byte 0: unpacks to 187 bytes, not the 188 it promises",
        ),
        (
            with(&packed, entry, false, 24, &[10, 0, 0, 0]),
            "a.npz: member `x.npy`, byte 0: unpacks to more than the 10 bytes it promises",
        ),
        (parse(&renamed), "a.npz: byte 517: a second member `x.npy`"),
        (parse(&foreign), "a.npz: member `y.npz`, byte 0: is not an array: members are called NAME.npy"),
        (
            refused(npz::parse("a.npz", &plain, &small)),
            "a.npz: member `y.npy`, byte 0: unpacks to 168 bytes, and 12 are left of the limit: if it is meant to, raise the limit `unpacked_bytes`",
        ),
        (
            refused(npz::parse("a.npz", &packed, &Limits { unpacked_bytes: 100, ..small })),
            "a.npz: member `x.npy`, byte 0: unpacks to 188 bytes, and 100 are left of the limit: if it is meant to, raise the limit `unpacked_bytes`",
        ),
    ]);
}

#[test]
fn csv() {
    let csv = Csv::new().numbers("x", F32, ["a", "b"]).classes("y", "kind", ["cat", "dog"]);
    let parse = |text: &str| refused(csv.parse("t.csv", text.as_bytes()));
    let bare = |text: &[u8], csv: Csv| refused(csv.no_header().parse("t.csv", text));
    check(&[
        (parse("a,b,kind\n1,2,cat\n1,x,cat\n"), "t.csv: line 3, column 2 (`b`): expected f32, found `x`"),
        (
            parse("a,b,kind\n1,2,cat\n\n\n1,,cat\n"),
            "t.csv: line 5, column 2 (`b`): expected f32, and the cell is empty: fill it in or leave the line out",
        ),
        (
            parse("a,b,kind\r\n1,2,cat\r\n\r\n\r\n1,2\r\n"),
            "t.csv: line 5: has 2 cells, the lines before it 3: is a quote or a delimiter missing?",
        ),
        (
            parse("a,b,kind\n1,\"2\n\",cat\n1,2,cta"),
            "t.csv: line 4, column 3 (`kind`): expected one of `cat`, `dog`, found `cta`; did you mean `cat`?",
        ),
        (
            parse("a,b,kind\n1,2,cat\n1,2\n"),
            "t.csv: line 3: has 2 cells, the lines before it 3: is a quote or a delimiter missing?",
        ),
        (parse("a,c,kind\n1,2,cat\n"), "t.csv: line 1: there is no column `b`; the header has `a`, `c`, `kind`"),
        (parse("a,a,kind,b\n1,2,cat,1\n"), "t.csv: line 1: columns 1 and 2 are both called `a`: give a number, from 0"),
        (parse(""), "t.csv: is empty: it needs a header, unless it is said to have none"),
        (
            refused(csv.parse("t.csv", b"a,b,kind\n1,2,\xff\n")),
            "t.csv: line 2: column 3 is not UTF-8: save the file as UTF-8",
        ),
        (bare(b"1\n256\n", Csv::new().number("x", U8, 0)), "t.csv: line 2, column 1: expected u8, found `256`"),
        (bare(b"1\n1.5\n", Csv::new().number("x", I32, 0)), "t.csv: line 2, column 1: expected i32, found `1.5`"),
        (bare(b"1\n2\n", Csv::new().number("x", Bool, 0)), "t.csv: line 2, column 1: expected bool, found `2`"),
        (bare(b"1,2\n3,4\n", Csv::new().number("x", I32, 2)), "t.csv: line 1, column 3: the line has only 2 cells"),
        (
            bare(b"1\n", Csv::new().number("x", I32, "a")),
            "t.csv: column `a` has no name without a header: give its number, from 0",
        ),
        (bare(b"1\n", Csv::new().numbers("x", I32, [0usize; 0])), "field `x` has no columns: name at least one"),
        (bare(b"1\n", Csv::new()), "say which columns to read as which field"),
        (
            refused(Csv::new().number("x", I32, 2).parse("t.csv", b"a,b\n1,2\n")),
            "t.csv: line 1: there is no column 2: the header has 2, counted from 0",
        ),
        (refused(csv.read(fixture("none.csv"))), "none.csv: No such file or directory (os error 2)"),
    ]);
}

#[test]
fn pictures() {
    let png = bytes_of("pictures/cat/a.png");
    let jpg = bytes_of("pictures/cat/b.jpg");
    let parse = |bytes: &[u8]| refused(Images::rgb().parse("a.png", bytes));
    let open = |name: &str, images| refused(ImageFolder::open(fixture(name), images));
    let tiny = Images::rgb().limits(Limits { pixels: 20, ..Limits::default() });
    let mut bomb = png.clone();
    // The extents in IHDR, and the checksum that goes with them.
    bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32fast::hash(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut flipped = png.clone();
    flipped[20] ^= 1;
    check(&[
        (parse(b""), "a.png: is neither PNG nor JPEG by its first bytes: convert it, or move it away"),
        (parse(b"GIF89a"), "a.png: is neither PNG nor JPEG by its first bytes: convert it, or move it away"),
        (parse(&png[..30]), "a.png: has a damaged header: unexpected end of file"),
        (parse(&png[..60]), "a.png: cannot be decoded: unexpected end of file; fetch it again or move it away"),
        (
            parse(&flipped),
            "a.png: has a damaged header: Format error decoding Png: CRC error: expected 0x2266d914 have 0x351dcd57 while decoding ChunkType { type: IHDR, critical: true, private: false, reserved: false, safecopy: false } chunk.",
        ),
        (
            parse(&jpg[..100]),
            "a.png: has a damaged header: Format error decoding Jpeg: I/O errors Not enough bytes, expected 64 but found 6",
        ),
        (
            parse(&bomb),
            "a.png: has 65536 × 65536 pixels, more than 268435456: if it is meant to, raise the limit `pixels`",
        ),
        (
            refused(tiny.parse("a.png", &png)),
            "a.png: has 4 × 6 pixels, more than 20: if it is meant to, raise the limit `pixels`",
        ),
        (
            open("sizes", Images::rgb()),
            "sizes/b/1.png: is 3 × 6 pixels, the first picture 4 × 6: say to what height and width to resize or crop them",
        ),
        (
            open("sizes", Images::rgb().resize(0, 5)),
            "pictures cannot be made 0 × 5 pixels: take 1 to 268435456 pixels in all",
        ),
        (
            open("pictures/cat", Images::rgb()),
            "pictures/cat/a.png: is not a folder: pictures go into one folder per class",
        ),
        (open(".", Images::rgb()), "./bool.npy: is not a folder: pictures go into one folder per class"),
        (open("none", Images::rgb()), "none: No such file or directory (os error 2)"),
        (
            refused(mnist(fixture("sizes"))),
            "sizes/train-images-idx3-ubyte: no such file, nor one ending in .gz: fetch the four files of MNIST from https://ossci-datasets.s3.amazonaws.com/mnist/ into this folder",
        ),
    ]);
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);
impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("thalweg-data-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("this is sound");
        Self(folder)
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn folders_and_labels_that_do_not_belong_together() {
    let folder = Folder::new("odd");
    let refused = |r: Result<ImageFolder, DataError>| {
        refused(r).replace(&format!("{}/", folder.0.display()), "").replace(&folder.0.display().to_string(), ".")
    };
    let open = || refused(ImageFolder::open(&folder.0, Images::rgb()));
    let mut cases = vec![(open(), ".: has no folders: pictures go into one folder per class")];
    std::fs::create_dir_all(folder.0.join("cat")).unwrap();
    std::fs::write(folder.0.join(".hidden"), "").unwrap();
    cases.push((open(), "cat: has no pictures: a class needs at least one"));
    std::fs::copy(fixture("pictures/cat/a.png"), folder.0.join("cat/a.png")).unwrap();
    std::fs::write(folder.0.join("cat/notes.txt"), "").unwrap();
    cases.push((open(), "cat/notes.txt: is not a .png, .jpg or .jpeg: move it away"));
    std::fs::remove_file(folder.0.join("cat/notes.txt")).unwrap();
    let good = ImageFolder::open(&folder.0, Images::rgb()).unwrap();
    std::fs::copy(fixture("sizes/b/1.png"), folder.0.join("cat/a.png")).unwrap();
    let late = thalweg_data::Source::read(&good, &[0]).unwrap_err().to_string();
    let late = late.replace(&format!("{}/", folder.0.display()), "");
    cases.push((
        late,
        "cat/a.png: is 3 × 6 pixels, the first picture 4 × 6: say to what height and width to resize or crop them",
    ));
    check(&cases);

    for (name, bytes) in [
        ("train-images-idx3-ubyte", &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5, 6][..]),
        ("train-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 2]),
    ] {
        std::fs::write(folder.0.join(name), bytes).unwrap();
    }
    let error = mnist(&folder.0).unwrap_err().to_string();
    let error = error.replace(&format!("{}/", folder.0.display()), "");
    let want = "train-labels-idx1-ubyte: expected a label for each of 2 pictures, u8[2], found u8[3]";
    assert_eq!(error, want);
}
