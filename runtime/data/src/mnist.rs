//! MNIST and its look-alikes (Fashion-MNIST, KMNIST): four IDX files under their usual names. Nothing is downloaded: a
//! framework that fetches behind one's back fails on the machines that matter.

use std::path::{Path, PathBuf};

use thalweg_graph::{Array, DType};

use crate::dataset::Dataset;
use crate::error::{DataError, Place, Result};
use crate::file::name_of;
use crate::idx;

/// The training and the test set in `folder`: `image` `f32[n, 1, 28, 28]` in 0..=1 and `label` `i32[n]`; about 220 MB
/// for the usual 70,000. The four files are found gzipped or not.
///
/// # Errors
/// Files that are missing (and where to get them), damaged, or do not belong together.
pub fn mnist(folder: impl AsRef<Path>) -> Result<(Dataset, Dataset)> {
    let folder = folder.as_ref();
    Ok((part(folder, "train", &|_| Ok(()))?, part(folder, "t10k", &|_| Ok(()))?))
}

/// One of the two sets, of files that `may_be` lets be read.
pub(crate) fn part(folder: &Path, part: &str, may_be: &dyn Fn(&Path) -> Result<()>) -> Result<Dataset> {
    let images = find(folder, &format!("{part}-images-idx3-ubyte"))?;
    let labels = find(folder, &format!("{part}-labels-idx1-ubyte"))?;
    may_be(&images)?;
    may_be(&labels)?;
    let (pixels, classes) = (idx::read(&images)?, idx::read(&labels)?);
    let fault = |path: &Path, what: String| Err(DataError::malformed(&name_of(path), Place::Whole, what));
    let ([n, height, width], DType::U8) = (pixels.shape(), pixels.dtype()) else {
        return fault(&images, format!("expected pictures, u8[n, height, width], found {}", pixels.ty()));
    };
    if classes.shape() != [*n] || classes.dtype() != DType::U8 {
        return fault(&labels, format!("expected a label for each of {n} pictures, u8[{n}], found {}", classes.ty()));
    }
    let mut image = Array::zeros(DType::F32, &[*n, 1, *height, *width]);
    for (to, byte) in image.as_mut_slice::<f32>().iter_mut().zip(pixels.bytes()) {
        *to = f32::from(*byte) / 255.0;
    }
    let label: Vec<i32> = classes.bytes().iter().map(|c| i32::from(*c)).collect();
    Dataset::new([("image", image), ("label", Array::from_slice(&[*n], &label))])
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    // Some mirrors write a dot before `idx`.
    let names = [name.to_string(), name.replace("-idx", ".idx")];
    let paths = names.iter().flat_map(|n| [folder.join(n), folder.join(format!("{n}.gz"))]);
    paths.into_iter().find(|path| path.is_file()).ok_or_else(|| DataError::Io {
        path: folder.join(name).display().to_string(),
        why: "no such file, nor one ending in .gz: fetch the four files of MNIST from \
              https://ossci-datasets.s3.amazonaws.com/mnist/ into this folder"
            .into(),
    })
}
