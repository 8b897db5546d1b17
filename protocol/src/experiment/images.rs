//! `task.data` of images, as it is typed and what it means.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::data::{CountOrNames, Files};
use super::data_file::{files, named, parts, several};
use super::validate::invalid;

/// Images in files of one format, made one size.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageData {
    /// The files or folders.
    pub files: Files<PathBuf>,
    /// How they are kept.
    pub format: ImageFormat,
    /// Height, width and channels; 1 or 3 channels.
    pub image: [u32; 3],
    /// What the labels stand for.
    pub classes: CountOrNames,
    /// What each channel is shifted and divided by after its scaling to 0 to 1.
    pub normalize: Option<Normalize>,
}

/// How images are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// In the rows of a Parquet file.
    Parquet {
        /// The column of images.
        column: String,
        /// The column of labels.
        label: String,
        /// The column that says whose example a row is, if there is one.
        client: Option<String>,
    },
    /// In a folder for each class.
    Folder,
    /// In the binary version of CIFAR-10.
    Cifar10,
}

/// A mean and a standard deviation for each channel, of numbers from 0 to 1. They must be public: made from nobody's private
/// images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Subtracted.
    pub mean: Vec<f32>,
    /// Divided by, above 0.
    pub std: Vec<f32>,
}

/// `kind = "images"`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesFile {
    /// What simulated clients share: a file, or a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Instead of `test`: the last of every so many images of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// How images are kept.
    pub format: ImageFormatFile,
    /// Height, width and channels that every image is made.
    pub image: [u32; 3],
    /// The column of images; of `parquet` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The column of labels; of `parquet` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The column that says whose example a row is; of `parquet` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// How many classes there are, or what they are called.
    pub classes: CountOrNames,
    /// What each channel is shifted and divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
}

/// `task.data.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormatFile {
    /// PNG or JPEG in the rows of a Parquet file.
    Parquet,
    /// PNG or JPEG in a folder for each class.
    Folder,
    /// The binary version of CIFAR-10.
    #[serde(rename = "cifar-10")]
    Cifar10,
}

impl ImageData {
    /// Numbers in an image.
    pub fn features(&self) -> u32 {
        self.image.iter().copied().fold(1, u32::saturating_mul)
    }

    /// Whether they say whose example each is.
    pub fn has_clients(&self) -> bool {
        matches!(&self.format, ImageFormat::Parquet { client: Some(_), .. })
    }
}

impl TryFrom<&ImagesFile> for ImageData {
    type Error = Invalid;

    fn try_from(file: &ImagesFile) -> Result<Self, Invalid> {
        let [height, width, channels] = file.image;
        if !(1..=MAX_SIDE).contains(&height)
            || !(1..=MAX_SIDE).contains(&width)
            || ![1, 3].contains(&channels)
        {
            return Err(invalid(
                "task.data.image",
                format!("must be height and width, 1 to {MAX_SIDE} each, and 1 channel (grey) or 3 (colour)"),
            ));
        }
        if file.format == ImageFormatFile::Cifar10 && file.image != [32, 32, 3] {
            return Err(invalid("task.data.image", "must be [32, 32, 3] with format = \"cifar-10\""));
        }
        Ok(ImageData {
            files: files(&file.train, &file.test, file.hold_out_every)?,
            format: format(file)?,
            image: file.image,
            classes: several("task.data.classes", &file.classes, 2)?,
            normalize: file.normalize.as_ref().map(|normalize| checked(normalize, channels)).transpose()?,
        })
    }
}

fn format(file: &ImagesFile) -> Result<ImageFormat, Invalid> {
    let columns = [("column", &file.column), ("label", &file.label), ("client", &file.client)];
    if file.format != ImageFormatFile::Parquet
        && let Some((key, _)) = columns.iter().find(|(_, column)| column.is_some())
    {
        return Err(invalid(
            &format!("task.data.{key}"),
            "names a column, which only Parquet files have: remove it, or say format = \"parquet\"",
        ));
    }
    let column = |key: &str, name: &Option<String>| match name {
        Some(name) => named(&format!("task.data.{key}"), name),
        None => Err(invalid(
            &format!("task.data.{key}"),
            "is missing: say which column of the Parquet file it is",
        )),
    };
    Ok(match file.format {
        ImageFormatFile::Folder => ImageFormat::Folder,
        ImageFormatFile::Cifar10 => ImageFormat::Cifar10,
        ImageFormatFile::Parquet => ImageFormat::Parquet {
            column: column("column", &file.column)?,
            label: column("label", &file.label)?,
            client: file.client.as_ref().map(|name| named("task.data.client", name)).transpose()?,
        },
    })
}

fn checked(normalize: &Normalize, channels: u32) -> Result<Normalize, Invalid> {
    let Normalize { mean, std } = normalize;
    if [mean.len(), std.len()] != [channels as usize; 2] {
        return Err(invalid(
            "task.data.normalize",
            format!("must have a mean and a std for each channel, of which there are {channels}"),
        ));
    }
    match mean.iter().all(|mean| mean.is_finite()) && std.iter().all(|std| std.is_finite() && *std > 0.0) {
        true => Ok(normalize.clone()),
        false => Err(invalid("task.data.normalize", "must have finite means, and finite deviations above 0")),
    }
}

impl From<&ImageData> for ImagesFile {
    fn from(data: &ImageData) -> Self {
        let (train, test, hold_out_every) = parts(&data.files);
        let (format, [column, label, client]) = match data.format.clone() {
            ImageFormat::Parquet { column, label, client } => {
                (ImageFormatFile::Parquet, [Some(column), Some(label), client])
            }
            ImageFormat::Folder => (ImageFormatFile::Folder, [None, None, None]),
            ImageFormat::Cifar10 => (ImageFormatFile::Cifar10, [None, None, None]),
        };
        ImagesFile {
            train,
            test,
            hold_out_every,
            format,
            image: data.image,
            column,
            label,
            client,
            classes: data.classes.clone(),
            normalize: data.normalize.clone(),
        }
    }
}

/// Height and width of an image at most.
const MAX_SIDE: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parquet() -> ImagesFile {
        ImagesFile {
            train: Some("train.parquet".into()),
            test: Some("test.parquet".into()),
            hold_out_every: None,
            format: ImageFormatFile::Parquet,
            image: [32, 32, 3],
            column: Some("img".into()),
            label: Some("label".into()),
            client: None,
            classes: CountOrNames::Count(10),
            normalize: Some(Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }),
        }
    }

    #[test]
    fn files_come_back_as_they_were() {
        let folder = ImagesFile { format: ImageFormatFile::Folder, column: None, label: None, ..parquet() };
        let cifar = ImagesFile { format: ImageFormatFile::Cifar10, normalize: None, ..folder.clone() };
        for file in [parquet(), folder, cifar] {
            let data = ImageData::try_from(&file).unwrap();
            assert_eq!(ImagesFile::from(&data), file);
            assert_eq!(data.features(), 3072);
            let json = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<ImagesFile>(&json).unwrap(), file, "{json}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        let refused = |change: fn(&mut ImagesFile)| {
            let mut file = parquet();
            change(&mut file);
            ImageData::try_from(&file).unwrap_err().key
        };
        assert_eq!(refused(|file| file.image = [0, 32, 3]), "task.data.image");
        assert_eq!(refused(|file| file.image = [32, 32, 4]), "task.data.image");
        assert_eq!(refused(|file| file.image = [2048, 32, 3]), "task.data.image");
        assert_eq!(refused(|file| file.column = None), "task.data.column");
        assert_eq!(refused(|file| file.label = Some(" ".into())), "task.data.label");
        assert_eq!(refused(|file| file.format = ImageFormatFile::Folder), "task.data.column");
        assert_eq!(refused(|file| file.normalize.as_mut().unwrap().std[0] = 0.0), "task.data.normalize");
        assert_eq!(refused(|file| file.normalize.as_mut().unwrap().mean.push(0.0)), "task.data.normalize");
        assert_eq!(refused(|file| file.test = None), "task.data");
        assert_eq!(
            refused(|file| {
                (file.format, file.image) = (ImageFormatFile::Cifar10, [28, 28, 1]);
            }),
            "task.data.image"
        );
    }
}
