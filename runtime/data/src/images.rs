//! Pictures in folders: one folder per class, PNG and JPEG inside. Only the names are held; pictures are decoded when
//! their batch is read, on the threads that read ahead.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};
use thalweg_graph::{Array, DType, TensorType};

use crate::dataset::Dataset;
use crate::error::{DataError, Place, Result};
use crate::file::{Limits, name_of, read_file};
use crate::source::Source;

/// What a picture becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    channels: u64,
    dtype: DType,
    fit: Fit,
    /// Everybody's own: what a file may ask for is not for others to say.
    #[serde(skip)]
    limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fit {
    /// As it is; all must be of one size.
    Exact,
    /// Height and width, whatever that does to the proportions.
    Resize(u32, u32),
    /// Height and width, covered in proportion, what juts out cut off evenly.
    Crop(u32, u32),
}

impl Images {
    /// Three channels, `f32` in 0..=1. Transparency is dropped; the orientation that cameras note is not applied.
    pub fn rgb() -> Self {
        Self { channels: 3, dtype: DType::F32, fit: Fit::Exact, limits: Limits::default() }
    }
    /// One channel, `f32` in 0..=1: colours become their luminance.
    pub fn grey() -> Self {
        Self { channels: 1, ..Self::rgb() }
    }
    /// Bytes in 0..=255, a quarter of the memory and of the way to the device: cast and scale in the model.
    pub fn u8(mut self) -> Self {
        self.dtype = DType::U8;
        self
    }
    /// Stretches every picture to this size.
    pub fn resize(mut self, height: u32, width: u32) -> Self {
        self.fit = Fit::Resize(height, width);
        self
    }
    /// Scales every picture so that it covers this size in its own proportions, and cuts off what juts out, evenly.
    pub fn crop(mut self, height: u32, width: u32) -> Self {
        self.fit = Fit::Crop(height, width);
        self
    }
    /// What files may ask for.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Decodes one picture, `dtype[channels, height, width]`; `file` is what errors call it.
    ///
    /// # Errors
    /// Bytes that are not a sound PNG or JPEG, or more pixels than the limits allow.
    pub fn parse(&self, file: &str, bytes: &[u8]) -> Result<Array> {
        let picture = decode(file, bytes, &self.limits)?;
        let picture = match self.fit {
            Fit::Exact => picture,
            Fit::Resize(height, width) => picture.resize_exact(width, height, FilterType::Triangle),
            Fit::Crop(height, width) => picture.resize_to_fill(width, height, FilterType::Triangle),
        };
        let shape = [self.channels, u64::from(picture.height()), u64::from(picture.width())];
        let (bytes, channels) = match self.channels {
            1 => (picture.into_luma8().into_raw(), 1),
            _ => (picture.into_rgb8().into_raw(), 3),
        };
        // Pixel by pixel in the file, channel by channel in the array.
        let pixels = bytes.len() / channels;
        let planes = (0..channels).flat_map(|c| (0..pixels).map(move |p| p * channels + c)).map(|i| bytes[i]);
        let mut out = Array::zeros(self.dtype, &shape);
        match self.dtype {
            DType::U8 => out.bytes_mut().iter_mut().zip(planes).for_each(|(to, byte)| *to = byte),
            _ => {
                let out = out.as_mut_slice::<f32>().iter_mut();
                out.zip(planes).for_each(|(to, byte)| *to = f32::from(byte) / 255.0);
            }
        }
        Ok(out)
    }
}

/// Height and width, from the first bytes; the rest is not read.
fn size_of(file: &str, bytes: impl BufRead + Seek, limits: &Limits) -> Result<(u32, u32)> {
    let fault = |what: String| DataError::malformed(file, Place::Whole, what);
    let reader = guessed(file, bytes)?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(fault("is neither PNG nor JPEG by its first bytes: convert it, or move it away".into()));
    }
    let size = reader.into_dimensions();
    let (width, height) = size.map_err(|e| fault(format!("has a damaged header: {}", e.to_string().trim_end())))?;
    if u64::from(width) * u64::from(height) > limits.pixels {
        let what = format!("has {height} × {width} pixels, more than {}", limits.pixels);
        return Err(fault(format!("{what}: if it is meant to, raise the limit `pixels`")));
    }
    if width == 0 || height == 0 {
        return Err(fault(format!("has {height} × {width} pixels: there is nothing in it")));
    }
    Ok((height, width))
}

/// By content, whatever the name says.
fn guessed<R: BufRead + Seek>(file: &str, bytes: R) -> Result<ImageReader<R>> {
    let reader = ImageReader::new(bytes).with_guessed_format();
    reader.map_err(|e| DataError::Io { path: file.into(), why: e.to_string() })
}

fn decode(file: &str, bytes: &[u8], limits: &Limits) -> Result<DynamicImage> {
    size_of(file, Cursor::new(bytes), limits)?;
    let mut reader = guessed(file, Cursor::new(bytes))?;
    // Eight bytes a pixel are the most that a sound file needs, and decoders keep some more beside.
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(limits.pixels.saturating_mul(16));
    reader.limits(bounds);
    reader.decode().map_err(|e| {
        let what = format!("cannot be decoded: {}; fetch it again or move it away", e.to_string().trim_end());
        DataError::malformed(file, Place::Whole, what)
    })
}

/// A folder of folders of pictures, as a source: `image` and `label`, an `i32` that counts the class folders in order of
/// their names.
#[derive(Clone)]
pub struct ImageFolder(Arc<Inner>);

struct Inner {
    images: Images,
    size: (u32, u32),
    classes: Vec<String>,
    files: Vec<(PathBuf, i32)>,
    fingerprint: [u8; 32],
}

impl ImageFolder {
    /// Lists the pictures below `folder`, and without [`Images::resize`] or [`Images::crop`] looks at the size of each.
    /// Names that begin with a dot are passed over.
    ///
    /// The fingerprint is of names, lengths and how pictures are read, not of their content, which would mean reading
    /// everything: a picture painted over in the same number of bytes goes unnoticed.
    ///
    /// # Errors
    /// No class folders, an empty one, something that does not belong there, a picture of another size than the first.
    pub fn open(folder: impl AsRef<Path>, images: Images) -> Result<Self> {
        Self::open_where(folder.as_ref(), images, &|_| Ok(()))
    }
    /// The same, of pictures that `may_be` lets be read; asked of what is behind a link.
    pub(crate) fn open_where(folder: &Path, images: Images, may_be: &dyn Fn(&Path) -> Result<()>) -> Result<Self> {
        let fault = |path: &Path, what: &str| Err(DataError::malformed(&name_of(path), Place::Whole, what));
        if let Fit::Resize(height, width) | Fit::Crop(height, width) = images.fit
            && (height == 0 || width == 0 || u64::from(height) * u64::from(width) > images.limits.pixels)
        {
            let most = images.limits.pixels;
            let what = format!("pictures cannot be made {height} × {width} pixels: take 1 to {most} pixels in all");
            return Err(DataError::Settings(what));
        }
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{:?} {} {}\n", images.fit, images.channels, images.dtype).as_bytes());
        for (class, path) in listed(folder)? {
            if !path.is_dir() {
                return fault(&path, "is not a folder: pictures go into one folder per class");
            }
            let behind_link = |path: &Path| if path.is_symlink() { may_be(path) } else { Ok(()) };
            behind_link(&path)?;
            let label = classes.len() as i32;
            let before = files.len();
            for (name, path) in listed(&path)? {
                behind_link(&path)?;
                let facts = std::fs::metadata(&path).map_err(|e| DataError::io(&path, &e))?;
                let kind = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
                if !facts.is_file() || !matches!(&*kind, "png" | "jpg" | "jpeg") {
                    return fault(&path, "is not a .png, .jpg or .jpeg: move it away");
                }
                hash.update(format!("{}:{class}/{}:{name} {}\n", class.len(), name.len(), facts.len()).as_bytes());
                files.push((path, label));
            }
            if files.len() == before {
                return fault(&path, "has no pictures: a class needs at least one");
            }
            classes.push(class);
        }
        let Some((first, _)) = files.first() else {
            return fault(folder, "has no folders: pictures go into one folder per class");
        };
        let size = match images.fit {
            Fit::Resize(height, width) | Fit::Crop(height, width) => (height, width),
            Fit::Exact => same_size(first, &files, &images.limits)?,
        };
        let fingerprint = *hash.finalize().as_bytes();
        Ok(Self(Arc::new(Inner { images, size, classes, files, fingerprint })))
    }
    /// Names of the classes; a label is a place in this list.
    pub fn classes(&self) -> &[String] {
        &self.0.classes
    }
    /// The file of a sample.
    pub fn path(&self, row: usize) -> Option<&Path> {
        self.0.files.get(row).map(|(path, _)| &**path)
    }
}

/// What is in a folder, by name, without what begins with a dot.
fn listed(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| DataError::io(folder, &e))? {
        let entry = entry.map_err(|e| DataError::io(folder, &e))?;
        let Ok(name) = entry.file_name().into_string() else {
            let what = "its name is not UTF-8: rename it";
            return Err(DataError::malformed(&name_of(&entry.path()), Place::Whole, what));
        };
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn same_size(first: &Path, files: &[(PathBuf, i32)], limits: &Limits) -> Result<(u32, u32)> {
    let size = |path: &Path| {
        let file = File::open(path).map_err(|e| DataError::io(path, &e))?;
        size_of(&name_of(path), BufReader::new(file), limits)
    };
    let want = size(first)?;
    for (path, _) in &files[1..] {
        let got = size(path)?;
        if got != want {
            return Err(another_size(&name_of(path), got, want));
        }
    }
    Ok(want)
}

fn another_size(file: &str, got: (u32, u32), want: (u32, u32)) -> DataError {
    let what = format!("is {} × {} pixels, the first picture {} × {}", got.0, got.1, want.0, want.1);
    DataError::malformed(file, Place::Whole, format!("{what}: say to what height and width to resize or crop them"))
}

impl Source for ImageFolder {
    fn fields(&self) -> Vec<(String, TensorType)> {
        let Inner { images, size, .. } = &*self.0;
        let image = images.dtype.of([images.channels, u64::from(size.0), u64::from(size.1)]);
        vec![("image".into(), image), ("label".into(), DType::I32.of(()))]
    }
    fn len(&self) -> usize {
        self.0.files.len()
    }
    fn fingerprint(&self) -> Result<[u8; 32]> {
        Ok(self.0.fingerprint)
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset> {
        Dataset::new([("image", self.0.pictures(rows)?), ("label", self.0.labels(rows)?)])
    }
    fn read_fields(&self, rows: &[usize], fields: &[usize]) -> Result<Vec<Array>> {
        // A label costs no picture.
        fields.iter().map(|field| if *field == 0 { self.0.pictures(rows) } else { self.0.labels(rows) }).collect()
    }
}

impl Inner {
    fn file(&self, row: usize) -> Result<&(PathBuf, i32)> {
        self.files.get(row).ok_or(DataError::NoSample { row, len: self.files.len() })
    }
    fn labels(&self, rows: &[usize]) -> Result<Array> {
        let labels = rows.iter().map(|row| Ok(self.file(*row)?.1)).collect::<Result<Vec<i32>>>()?;
        Ok(Array::from_slice(&[rows.len() as u64], &labels))
    }
    fn pictures(&self, rows: &[usize]) -> Result<Array> {
        let Self { images, size, .. } = self;
        let (height, width) = (u64::from(size.0), u64::from(size.1));
        let mut batch = Array::zeros(images.dtype, &[rows.len() as u64, images.channels, height, width]);
        let one = (images.channels * height * width) as usize * images.dtype.size_bytes();
        for (row, to) in rows.iter().zip(batch.bytes_mut().chunks_exact_mut(one)) {
            let (path, _) = self.file(*row)?;
            let file = name_of(path);
            let image = images.parse(&file, &read_file(path)?)?;
            if image.shape()[1..] != [height, width] {
                // The file was replaced since it was listed.
                let got = (image.shape()[1] as u32, image.shape()[2] as u32);
                return Err(another_size(&file, got, *size));
            }
            to.copy_from_slice(image.bytes());
        }
        Ok(batch)
    }
}
