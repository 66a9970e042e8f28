//! Data: the readers, sources and loaders of [`thalweg_data`], and the digits that come with the source, so that there is
//! something to train on without a file.

pub use thalweg_data::{
    At, Batches, Csv, DataError, Dataset, Described, Descriptions, FileOpener, Files, ImageFolder, Images, Limits,
    Loader, Own, Place, Source, Subset, csv, idx, mnist, npy, npz, order, permutation,
};
use thalweg_graph::Array;
pub use thalweg_runtime::source::Batch;

use crate::error::Result;

/// The 1,797 handwritten digits of the UCI repository (Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*,
/// CC BY 4.0): `image` `f32[n, 1, 8, 8]` in 0..=1 and `label` `i32[n]`. 1,437 to train on and 360 to test on.
pub fn digits() -> Result<(Dataset, Dataset)> {
    let all = all_digits()?;
    let order = permutation("digits/split", all.len());
    let (train, test) = order.split_at(all.len() * 4 / 5);
    Ok((all.select(train), all.select(test)))
}

/// What opens [`Files`], at workers and where there are none: all formats, and `digits/train` and `digits/test`, which are
/// built in.
pub fn file_opener() -> FileOpener {
    FileOpener::new(|name| {
        let of =
            |part: fn((Dataset, Dataset)) -> Dataset| digits().map(part).map_err(|e| DataError::Other(e.to_string()));
        match name {
            "digits/train" => Some(of(|(train, _)| train)),
            "digits/test" => Some(of(|(_, test)| test)),
            _ => None,
        }
    })
}

/// All of them, in the order of the file.
pub(crate) fn all_digits() -> Result<Dataset> {
    let text = include_str!("../data/digits.txt");
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate() {
        let bad = || DataError::Malformed {
            file: "digits.txt".into(),
            at: Place::Line(i as u64 + 1),
            what: "expected a digit and 64 letters a..q".into(),
        };
        let (label, pixels) = line.as_bytes().split_first().ok_or_else(bad)?;
        if !label.is_ascii_digit() || pixels.len() != 64 || pixels.iter().any(|p| !(b'a'..=b'q').contains(p)) {
            return Err(bad().into());
        }
        labels.push(i32::from(label - b'0'));
        images.extend(pixels.iter().map(|p| f32::from(p - b'a') / 16.0));
    }
    let n = labels.len();
    Ok(Dataset::new([
        ("image", Array::from_slice(&[n as u64, 1, 8, 8], &images)),
        ("label", Array::from_slice(&[n as u64], &labels)),
    ])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_split_into_1437_and_360() {
        let (train, test) = digits().expect("the file is sound");
        assert_eq!((train.len(), test.len()), (1437, 360));
        assert_eq!(train.batches(64, 0, 0).map(|b| b.len()).sum::<usize>(), 1437);
    }
}
