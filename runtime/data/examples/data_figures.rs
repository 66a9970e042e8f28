//! How fast readers and loaders are, on data made up here: what a change to them costs or gains.
//!
//! Expected output: one line per case, such as `IDX, gzipped, 47 MB unpacked: 190 ms, 250 MB/s`.

use std::io::Write;
use std::time::Instant;

use thalweg_data::{Csv, Dataset, Images, Limits, Loader, Source, idx, npy, order};
use thalweg_graph::Array;
use thalweg_graph::DType::F32;

/// The best of three, since the machine has other things to do.
fn timed<T>(mut f: impl FnMut() -> T) -> f64 {
    let mut once = || {
        let started = Instant::now();
        std::hint::black_box(f());
        started.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn report(what: &str, bytes: usize, seconds: f64) {
    let megabytes = bytes as f64 / 1e6;
    println!("{what}, {megabytes:.0} MB unpacked: {:.0} ms, {:.0} MB/s", seconds * 1e3, megabytes / seconds);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::default();

    // Strokes and much black, like MNIST.
    let n = 60_000 * 28 * 28;
    let pixels: Vec<u8> =
        order::words("pixels").flat_map(|w| [if w % 5 == 0 { (w >> 8) as u8 } else { 0 }; 3]).take(n).collect();
    let mut file = vec![0, 0, 8, 3];
    [60_000u32, 28, 28].iter().for_each(|d| file.extend(d.to_be_bytes()));
    file.extend(&pixels);
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    packed.write_all(&file)?;
    let packed = packed.finish()?;
    report("IDX, plain", n, timed(|| idx::parse("figures", &file, &limits)));
    report("IDX, gzipped", n, timed(|| idx::parse("figures", &packed, &limits)));

    let rows = 100_000;
    let mut table = String::from("a,b,c,d,e,f,g,h,i,j\n");
    for words in order::words("cells").take(rows).collect::<Vec<_>>() {
        let cells: Vec<String> =
            (0..10).map(|i| format!("{:.4}", (words >> (4 * i) & 0xffff) as f64 / 997.0)).collect();
        table += &format!("{}\n", cells.join(","));
    }
    let csv = Csv::new().numbers("x", F32, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    report("CSV, ten columns of f32", table.len(), timed(|| csv.parse("figures", table.as_bytes())));

    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (200000, 64), }\n";
    let npy_file =
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![1; 51_200_000]]
            .concat();
    report("npy", npy_file.len(), timed(|| npy::parse("figures", &npy_file, &limits)));

    let x = Array::zeros(F32, &[200_000, 64]);
    let data = Dataset::new([("x", x)])?;
    let bytes = 51_200_000;
    report(
        "fingerprint of data in memory",
        bytes,
        timed(|| Dataset::new([("x", data["x"].clone())]).map(|d| d.fingerprint())),
    );
    let all = |loader: &Loader| loader.iter().filter(|b| b.is_ok()).count();
    for threads in 0..=2 {
        let loader = data.shuffle(1).batch(64).prefetch(threads);
        let seconds = timed(|| all(&loader));
        println!(
            "loader, 64 × 64 f32 in memory, {threads} threads: {:.1} µs a batch",
            seconds * 1e6 / loader.steps_per_pass() as f64
        );
    }

    // Decoding, as a folder of pictures does it, without the disk.
    let picture = include_bytes!("../tests/fixtures/pictures/cat/b.jpg");
    let images = Images::rgb().resize(224, 224);
    let decode = data.subset((0..256).collect())?.batch(32).map(move |batch, _| {
        for _ in 0..batch.len() {
            images.parse("b.jpg", picture)?;
        }
        Ok(batch)
    });
    for threads in 0..=2 {
        let loader = decode.clone().prefetch(threads);
        let seconds = timed(|| all(&loader));
        println!("loader, a small JPEG made 224 × 224, {threads} threads: {:.0} pictures/s", 256.0 / seconds);
    }
    Ok(())
}
