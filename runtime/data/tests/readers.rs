//! Readers against files that NumPy and Pillow wrote (`fixtures/make.py` says how, and what is in them), and against
//! tables and IDX files spelled out here.

#![allow(missing_docs)]

use std::path::PathBuf;

use thalweg_data::{Csv, Dataset, ImageFolder, Images, Limits, Source, idx, mnist, npy, npz};
use thalweg_graph::Array;
use thalweg_graph::DType::{self, BF16, Bool, F16, F32, F64, I32, I64, U8, U32};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn npy_of_every_element_type_byte_order_and_version() {
    let eighth = |i: usize| i as f64 / 8.0;
    let minus = |i: usize| i as f64 - 12.0;
    type Case<'a> = (&'a str, DType, &'a dyn Fn(usize) -> f64);
    let cases: &[Case<'_>] = &[
        ("f4", F32, &eighth),
        ("f8_big", F64, &eighth),
        ("f2_fortran", F16, &eighth),
        ("i1", I32, &minus),
        ("i2_big_fortran", I32, &minus),
        ("u2", I32, &|i| i as f64 + 60000.0),
        ("i4", I32, &minus),
        ("u4_big", U32, &|i| i as f64),
        ("i8", I64, &minus),
        ("u8", I64, &|i| i as f64),
        ("bool", Bool, &|i| f64::from(u8::from(i % 3 == 0))),
        ("bytes", U8, &|i| i as f64),
        ("version2", F32, &eighth),
        ("version3", F32, &eighth),
    ];
    for (name, dtype, value) in cases {
        let array = npy::read(fixture(&format!("{name}.npy"))).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((array.dtype(), array.shape()), (*dtype, &[2, 3, 4][..]), "{name}");
        assert_eq!(array.to_f64(), (0..24).map(value).collect::<Vec<_>>(), "{name}");
    }
    let scalar = npy::read(fixture("scalar.npy")).unwrap();
    assert_eq!((scalar.shape(), scalar.item()), (&[][..], 1.5));
    assert_eq!(npy::read(fixture("empty.npy")).unwrap().shape(), [0, 3]);
}

#[test]
fn npz_stored_and_deflated() {
    for name in ["plain.npz", "packed.npz"] {
        let data = Dataset::new(npz::read(fixture(name)).unwrap()).unwrap();
        assert_eq!(
            data.feeds().iter().map(|(n, a)| format!("{n} {}", a.ty())).collect::<Vec<_>>(),
            ["x f32[5, 3]", "y i64[5]"]
        );
        assert_eq!(data["x"].to_f64(), (0..15).map(|i| f64::from(i) / 4.0).collect::<Vec<_>>());
        assert_eq!(data["y"].to_f64(), [0.0, 1.0, 0.0, 1.0, 0.0]);
    }
}

/// The header of an IDX file and its elements.
fn idx_file(code: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, code, shape.len() as u8];
    shape.iter().for_each(|d| file.extend(d.to_be_bytes()));
    file.extend(data);
    file
}

#[test]
fn idx_of_every_element_type_and_any_rank() {
    let parse = |code, shape: &[u32], data: &[u8]| {
        idx::parse("a.idx", &idx_file(code, shape, data), &Limits::default()).unwrap_or_else(|e| panic!("{e}"))
    };
    let two = |a: &Array, want: [f64; 2]| assert_eq!(a.to_f64(), want);
    assert_eq!(parse(8, &[2], &[1, 255]).dtype(), U8);
    two(&parse(8, &[2], &[1, 255]), [1.0, 255.0]);
    two(&parse(9, &[2], &[1, 255]), [1.0, -1.0]);
    two(&parse(0xb, &[2], &[1, 0, 0xff, 0xfe]), [256.0, -2.0]);
    two(&parse(0xc, &[2], &[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xfe]), [256.0, -2.0]);
    two(&parse(0xd, &[2], &[1.5f32.to_be_bytes(), (-2f32).to_be_bytes()].concat()), [1.5, -2.0]);
    two(&parse(0xe, &[2], &[1.5f64.to_be_bytes(), (-2f64).to_be_bytes()].concat()), [1.5, -2.0]);
    assert_eq!(parse(8, &[1; 200], &[7]).shape(), [1; 200]);
    assert_eq!(parse(8, &[], &[7]).item(), 7.0);
    assert_eq!(parse(8, &[0, 5], &[]).shape(), [0, 5]);
}

#[test]
fn mnist_in_small_gzipped_and_not() {
    let (train, test) = mnist(fixture("mnist")).unwrap();
    assert_eq!((train.len(), test.len()), (4, 2));
    assert_eq!(
        (train["image"].ty().to_string(), train["label"].ty().to_string()),
        ("f32[4, 1, 2, 3]".into(), "i32[4]".into())
    );
    let pixels: Vec<f32> = (0..24).map(|i| (i * 5) as f32 / 255.0).collect();
    assert_eq!(train["image"].as_slice::<f32>(), pixels);
    assert_eq!(train["label"].as_slice::<i32>(), [0, 1, 2, 3]);
}

#[test]
fn csv_by_name_by_number_and_with_words() {
    let text = "\u{feff}width, height ,kind,ok,note\r\n1,2.5,cat,true,\"a, \"\"b\"\"\nc\"\r\n-3, nan ,dog,0,\n1e3,inf,cat,1,x\n";
    let csv = Csv::new()
        .numbers("x", F32, ["height", "width"])
        .numbers("one", F64, ["width"])
        .number("ok", Bool, 3)
        .classes("y", "kind", ["dog", "cat"]);
    let data = csv.parse("t.csv", text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        data.feeds().iter().map(|(n, a)| format!("{n} {}", a.ty())).collect::<Vec<_>>(),
        ["x f32[3, 2]", "one f64[3, 1]", "ok bool[3]", "y i32[3]"]
    );
    let x = data["x"].as_slice::<f32>();
    assert_eq!((x[0], x[1], x[3], x[4], x[5]), (2.5, 1.0, -3.0, f32::INFINITY, 1000.0));
    assert!(x[2].is_nan());
    assert_eq!(data["ok"].to_f64(), [1.0, 0.0, 1.0]);
    assert_eq!(data["y"].as_slice::<i32>(), [1, 0, 1]);

    let plain = Csv::new().no_header().delimiter(b';').numbers("x", I64, 1..3).number("y", U8, 0);
    let data = plain.parse("t.csv", b"7;1;-9223372036854775808\n255;3;4\n").unwrap();
    assert_eq!(data["x"].as_slice::<i64>(), [1, i64::MIN, 3, 4]);
    assert_eq!(data["y"].as_slice::<u8>(), [7, 255]);
}

#[test]
fn csv_into_every_element_type() {
    for dtype in DType::ALL {
        let data = Csv::new().no_header().number("x", dtype, 0).parse("t.csv", b"1\n0\n1\n").unwrap();
        assert_eq!((data["x"].dtype(), data["x"].to_f64()), (dtype, vec![1.0, 0.0, 1.0]));
    }
    let halves = Csv::new().no_header().number("h", F16, 0).number("b", BF16, 0).parse("t", b"0.1\n").unwrap();
    assert_eq!((halves["h"].item(), halves["b"].item()), (0.0999755859375, 0.10009765625));
}

#[test]
fn pictures_of_every_kind_become_channels_rows_columns() {
    let rgb = ImageFolder::open(fixture("pictures"), Images::rgb().u8()).unwrap();
    assert_eq!((rgb.len(), rgb.classes()), (6, &["cat", "dog", "eel"].map(String::from)[..]));
    assert_eq!(
        rgb.fields().iter().map(|(n, t)| format!("{n} {t}")).collect::<Vec<_>>(),
        ["image u8[3, 4, 6]", "label i32[]"]
    );
    let all = rgb.read_all().unwrap();
    assert_eq!(all["label"].as_slice::<i32>(), [0, 0, 1, 1, 2, 2]);
    let pixels = all["image"].bytes();
    let at = |n: usize, c: usize, y: usize, x: usize| i32::from(pixels[((n * 3 + c) * 4 + y) * 6 + x]);
    for (n, slack) in [(0, 0), (1, 16), (2, 0), (5, 8)] {
        for (y, x) in (0..4).flat_map(|y| (0..6).map(move |x| (y, x))) {
            let got = [0, 1, 2].map(|c| at(n, c, y, x));
            let want = [40 * y as i32, 40 * x as i32, 7];
            let off = got.iter().zip(want).map(|(g, w)| (g - w).abs()).max().unwrap();
            assert!(off <= slack, "picture {n} at {y}, {x}: {got:?}, expected {want:?}");
        }
    }
    for n in [3, 4] {
        assert_eq!([at(n, 0, 1, 5), at(n, 1, 1, 5), at(n, 2, 3, 0)], [200, 200, 0], "grey, picture {n}");
    }
    let grey = ImageFolder::open(fixture("pictures"), Images::grey()).unwrap().read(&[4, 3]).unwrap();
    assert_eq!(
        (grey["image"].ty().to_string(), grey["label"].as_slice::<i32>()),
        ("f32[2, 1, 4, 6]".into(), &[2, 1][..])
    );
    assert_eq!(grey["image"].as_slice::<f32>()[5], 200.0 / 255.0);
}

#[test]
fn pictures_of_any_size_are_stretched_or_cropped() {
    let shape =
        |images: Images| ImageFolder::open(fixture("sizes"), images).unwrap().read_all().unwrap()["image"].clone();
    assert_eq!(shape(Images::rgb().resize(5, 2)).shape(), [2, 3, 5, 2]);
    let square = shape(Images::rgb().u8().crop(3, 3));
    assert_eq!(square.shape(), [2, 3, 3, 3]);
    // 3 × 6 covers 3 × 3 as it is: the middle columns stay, 1 to 3 or 2 to 4, to the last bit.
    let green = &square.bytes()[27 + 9..27 + 12];
    assert!(green == [40, 80, 120] || green == [80, 120, 160], "{green:?}");
    let prints = [
        Images::rgb().resize(5, 2),
        Images::rgb().crop(5, 2),
        Images::grey().crop(5, 2),
        Images::grey().u8().crop(5, 2),
    ]
    .map(|images| ImageFolder::open(fixture("sizes"), images).unwrap().fingerprint().unwrap());
    assert!((0..4).all(|i| !prints[..i].contains(&prints[i])), "how a picture is read is part of what the data is");
}

#[test]
fn pictures_come_the_same_on_threads() {
    let data = ImageFolder::open(fixture("pictures"), Images::rgb()).unwrap();
    let loader = data.shuffle(3).batch(4).epochs(3);
    let bytes = |l: &thalweg_data::Loader| l.iter().map(|b| b.unwrap()["image"].bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(bytes(&loader), bytes(&loader.clone().prefetch(3)));
}
