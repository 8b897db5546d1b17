//! Examples without labels, one after the other: what a model is asked about. From CSV or TSV with a header line, JSON
//! Lines, IDX, NPY, PNG and JPEG, folders of images, or lines of text; plain or compressed with gzip; from a file or a stream.

use std::io::{BufRead, BufReader, Error, ErrorKind, Lines, Read, stdin};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use ::csv::{Reader, StringRecord};
use serde_json::Value;
use thiserror::Error;

use crate::csv::{CsvError, column_names, find_column};
use crate::idx::{IdxError, Images};
use crate::images::{ImageFault, decode, files_in, is_image};
use crate::npy::{NpyError, is_numpy, parse};
use crate::source::{BoundedLines, open, unpacked};
use crate::table::{self, Cell, by_lines};
use crate::{ExampleError, Interface};

/// Reads examples for one model.
pub struct Unlabelled<'a> {
    path: PathBuf,
    interface: &'a Interface,
    inputs: usize,
    format: Format,
}

enum Format {
    Table {
        reader: Reader<BoundedLines<Source>>,
        names: Vec<String>,
        features: Vec<usize>,
        record: StringRecord,
    },
    Jsonl {
        reader: BufReader<BoundedLines<Source>>,
        line: u64,
    },
    Idx(Images<Source>),
    /// Images in files of their own.
    Files(IntoIter<PathBuf>),
    /// What has been read as a whole.
    Rows(IntoIter<Vec<f32>>),
    /// A text on each line.
    Lines(Lines<BufReader<BoundedLines<Source>>>),
}

type Source = Box<dyn Read>;

/// Why examples cannot be read. Lines and images count from 1.
#[derive(Debug, Error)]
pub enum UnlabelledError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A table is not what it should be.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// Images are not what they should be.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// A table has another number of columns than the model takes, whose numbers have no names.
    #[error(
        "{}, line 1: {actual} columns, but the model takes {expected} numbers, which have no names; \
         say which columns they are",
        path.display()
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// Numbers that the model takes.
        expected: usize,
        /// Columns in the header.
        actual: usize,
    },
    /// Columns were named for something that has none, or not as many as the model takes.
    #[error("{}: {named} columns were named; {needed}", path.display())]
    Named {
        /// The file.
        path: PathBuf,
        /// Columns named.
        named: usize,
        /// What is needed instead.
        needed: String,
    },
    /// A Parquet file, whose columns are not read one example after the other.
    #[error("{}: is a Parquet file, which is read for training only; write it as CSV, TSV or JSON Lines", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
    },
    /// A line is not JSON.
    #[error("{}, line {line}: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line.
        line: u64,
        /// What and in which column.
        source: serde_json::Error,
    },
    /// A line of JSON is no example.
    #[error("{}, line {line}: {source}", path.display())]
    Example {
        /// The file.
        path: PathBuf,
        /// Line.
        line: u64,
        /// What is wrong.
        source: ExampleError,
    },
    /// A file is no image.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageFault,
    },
    /// An array is not what it should be.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// Images of another size.
    #[error("{}: an image has {actual} pixels, the model takes {expected} numbers", path.display())]
    Pixels {
        /// The file.
        path: PathBuf,
        /// Numbers that the model takes.
        expected: usize,
        /// Pixels of an image.
        actual: usize,
    },
}

/// What standard input is called in errors.
const STANDARD_INPUT: &str = "standard input";

impl<'a> Unlabelled<'a> {
    /// Opens `path`, or standard input where it is `-`, for a model that takes `inputs` numbers. What it holds is told by how
    /// it begins. The columns of a table are found by the names in the interface; where it has none, `features` names them,
    /// or all columns are taken. For a model of texts, each line is one, unless `features` names the column of a table.
    ///
    /// # Errors
    /// [`UnlabelledError`].
    pub fn open(
        path: &Path,
        interface: &'a Interface,
        inputs: usize,
        features: Option<&[String]>,
    ) -> Result<Self, UnlabelledError> {
        if interface.image().is_some() && path.is_dir() {
            return Self::folder(path, interface, inputs);
        }
        let (path, source) = match path.to_str() {
            Some("-") => (PathBuf::from(STANDARD_INPUT), unpacked(stdin())),
            _ => (path.to_owned(), open(path)),
        };
        match source {
            Ok(source) => Self::read(path, source, interface, inputs, features),
            Err(source) => Err(UnlabelledError::File { path, source }),
        }
    }

    /// The images in a folder, in the order of their names.
    fn folder(path: &Path, interface: &'a Interface, inputs: usize) -> Result<Self, UnlabelledError> {
        let path = path.to_owned();
        let none = || Error::new(ErrorKind::NotFound, "holds no file called .png, .jpg or .jpeg");
        match files_in(&path).and_then(|files| if files.is_empty() { Err(none()) } else { Ok(files) }) {
            Ok(files) => Ok(Unlabelled { path, interface, inputs, format: Format::Files(files.into_iter()) }),
            Err(source) => Err(UnlabelledError::File { path, source }),
        }
    }

    /// An image or an array of NumPy, if the source begins as one does.
    fn whole(
        path: &Path,
        source: &mut impl BufRead,
        interface: &Interface,
        inputs: usize,
    ) -> Result<Option<Format>, UnlabelledError> {
        let failed = |source| UnlabelledError::File { path: path.to_owned(), source };
        let start = source.fill_buf().map_err(failed)?;
        let is_array = is_numpy(start) && start.starts_with(b"\x93");
        if !is_array && (interface.image().is_none() || !is_image(start)) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        source.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        if !is_array {
            let image = numbers_of_image(path, &bytes, interface)?;
            return Ok(Some(Format::Rows(vec![image].into_iter())));
        }
        let array = parse(&bytes).map_err(|fault| NpyError { path: path.to_owned(), fault })?;
        if array.values.is_empty() || !array.values.len().is_multiple_of(inputs) {
            let actual = array.shape.iter().skip(1).product();
            return Err(UnlabelledError::Pixels { path: path.to_owned(), expected: inputs, actual });
        }
        let rows: Vec<Vec<f32>> = array.values.chunks_exact(inputs).map(<[f32]>::to_vec).collect();
        Ok(Some(Format::Rows(rows.into_iter())))
    }

    fn read(
        path: PathBuf,
        source: Source,
        interface: &'a Interface,
        inputs: usize,
        features: Option<&[String]>,
    ) -> Result<Self, UnlabelledError> {
        let mut source = BufReader::new(source);
        if features.is_none()
            && let Some(format) = Self::whole(&path, &mut source, interface, inputs)?
        {
            return Ok(Unlabelled { path, interface, inputs, format });
        }
        let start = match source.fill_buf() {
            Ok(start) => start,
            Err(source) => return Err(UnlabelledError::File { path, source }),
        };
        let first = start.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let (is_parquet, written) = (start.starts_with(b"PAR1"), written(start));
        let source: Source = Box::new(source);
        let format = match (first, features) {
            (Some(b'{' | b'[' | 0), Some(named)) => {
                let (named, needed) = (named.len(), "only the columns of a CSV file can be".to_owned());
                return Err(UnlabelledError::Named { path, named, needed });
            }
            (Some(b'{' | b'[' | b'"'), None) => {
                Format::Jsonl { reader: BufReader::new(BoundedLines::new(source)), line: 0 }
            }
            (Some(0), None) => {
                let images = Images::begin(source).map_err(|fault| IdxError { path: path.clone(), fault })?;
                if images.pixels() != inputs {
                    return Err(UnlabelledError::Pixels { path, expected: inputs, actual: images.pixels() });
                }
                Format::Idx(images)
            }
            (_, None) if interface.text("").is_some() => {
                Format::Lines(BufReader::new(BoundedLines::new(source)).lines())
            }
            (_, Some(named)) if interface.text("").is_some() && named.len() != 1 => {
                let (named, needed) = (named.len(), "the texts stand in one column".to_owned());
                return Err(UnlabelledError::Named { path, named, needed });
            }
            _ if is_parquet => return Err(UnlabelledError::Parquet { path }),
            (_, features) => table(&path, source, written, interface, inputs, features)?,
        };
        Ok(Unlabelled { path, interface, inputs, format })
    }

    /// What the examples are read from, as errors name it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The numbers of the next example, as they stand there; `None` at the end.
    ///
    /// # Errors
    /// [`UnlabelledError`], which names the file, the line and the column.
    pub fn next_example(&mut self) -> Result<Option<Vec<f32>>, UnlabelledError> {
        let path = &self.path;
        match &mut self.format {
            Format::Table { reader, names, features, record } => {
                let more = reader.read_record(record);
                if !more.map_err(|source| CsvError::Malformed { path: path.clone(), source })? {
                    return Ok(None);
                }
                let line = record.position().map_or(0, |position| position.line());
                if let Some(example) = features.first().and_then(|&at| self.interface.text(&record[at])) {
                    return Ok(Some(example));
                }
                let wrong = |(column, fault): (usize, _)| {
                    let (path, column) = (path.clone(), names[features[column]].clone());
                    CsvError::Cell { path, line, column, fault: Box::new(fault) }
                };
                let numbers = match self.interface.table() {
                    Some(encoder) => encoder.encode(|column| Ok(Cell::Text(&record[features[column]]))),
                    None => features
                        .iter()
                        .enumerate()
                        .map(|(column, &at)| {
                            Cell::Text(&record[at]).number().map_err(|fault| (column, fault))
                        })
                        .collect(),
                };
                Ok(Some(numbers.map_err(wrong)?))
            }
            Format::Jsonl { reader, line } => {
                loop {
                    let mut text = String::new();
                    let read = reader.read_line(&mut text);
                    if read.map_err(|source| UnlabelledError::File { path: path.clone(), source })? == 0 {
                        return Ok(None);
                    }
                    *line += 1;
                    if text.trim().is_empty() {
                        continue;
                    }
                    let (path, line) = (|| path.clone(), *line);
                    let value: Value = serde_json::from_str(&text)
                        .map_err(|source| UnlabelledError::Json { path: path(), line, source })?;
                    let example = self.interface.example(self.inputs, &value);
                    return example.map(Some).map_err(|source| UnlabelledError::Example {
                        path: path(),
                        line,
                        source,
                    });
                }
            }
            Format::Files(files) => files
                .next()
                .map(|file| {
                    let mut bytes = Vec::new();
                    let read = open(&file).and_then(|source| source.take(MAX_BYTES).read_to_end(&mut bytes));
                    read.map_err(|source| UnlabelledError::File { path: file.clone(), source })?;
                    numbers_of_image(&file, &bytes, self.interface)
                })
                .transpose(),
            Format::Rows(rows) => Ok(rows.next()),
            Format::Lines(lines) => {
                let line = lines.next().transpose();
                let line = line.map_err(|source| UnlabelledError::File { path: path.clone(), source })?;
                Ok(line.and_then(|text| self.interface.text(text.trim())))
            }
            Format::Idx(images) => {
                let next = images.next_image().map_err(|fault| IdxError { path: path.clone(), fault })?;
                Ok(next)
            }
        }
    }
}

/// An image as the numbers that stand for it, of the size that the model takes.
fn numbers_of_image(path: &Path, bytes: &[u8], interface: &Interface) -> Result<Vec<f32>, UnlabelledError> {
    let size = interface.image().unwrap_or_default();
    match decode(bytes, size) {
        Ok(image) => Ok(image.into_iter().map(f32::from).collect()),
        Err(source) => Err(UnlabelledError::Image { path: path.to_owned(), source }),
    }
}

/// Bytes of what is read as a whole.
const MAX_BYTES: u64 = 1 << 30;

/// How a table of text is written that begins so: a header line with tabulators and no comma is one of TSV.
fn written(start: &[u8]) -> table::Format {
    let header = start.split(|byte| *byte == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
    match header.contains(&b'\t') && !header.contains(&b',') {
        true => table::Format::Tsv,
        false => table::Format::Csv,
    }
}

fn table(
    path: &Path,
    source: Source,
    written: table::Format,
    interface: &Interface,
    inputs: usize,
    features: Option<&[String]>,
) -> Result<Format, UnlabelledError> {
    let mut reader = by_lines(source, written);
    let header = reader.headers().map_err(|source| CsvError::Malformed { path: path.to_owned(), source })?;
    let names = column_names(header, path)?;
    let encoded: Option<Vec<String>> =
        interface.table().map(|encoder| encoder.columns().iter().map(|column| column.name.clone()).collect());
    let features = match (encoded.as_deref().or(interface.columns()), features) {
        (Some(columns), None) => columns,
        (Some(columns), Some(named)) => {
            let needed = format!("the model takes {}", columns.join(", "));
            return Err(UnlabelledError::Named { path: path.to_owned(), named: named.len(), needed });
        }
        (None, Some(named)) if interface.text("").is_none() && named.len() != inputs => {
            let needed = format!("the model takes {inputs} numbers");
            return Err(UnlabelledError::Named { path: path.to_owned(), named: named.len(), needed });
        }
        (None, Some(named)) => named,
        (None, None) if names.len() != inputs => {
            let (expected, actual) = (inputs, names.len());
            return Err(UnlabelledError::Columns { path: path.to_owned(), expected, actual });
        }
        (None, None) => &names,
    };
    let features =
        features.iter().map(|feature| find_column(&names, feature, path)).collect::<Result<_, _>>()?;
    Ok(Format::Table { reader, names, features, record: StringRecord::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Input;

    fn interface(columns: Option<&[&str]>) -> Interface {
        let columns = columns.map(|columns| columns.iter().map(|&column| column.to_owned()).collect());
        Interface {
            input: Input::Numbers { columns, divisor: 1.0 },
            standardization: None,
            classes: vec!["no".into(), "yes".into()],
            target: None,
        }
    }

    fn all(
        bytes: &[u8],
        columns: Option<&[&str]>,
        features: Option<&[&str]>,
    ) -> Result<Vec<Vec<f32>>, String> {
        let interface = interface(columns);
        let features = features.map(|names| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let source: Source = Box::new(std::io::Cursor::new(bytes.to_vec()));
        let read = Unlabelled::read("asked".into(), source, &interface, 2, features.as_deref());
        let mut read = read.map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        while let Some(row) = read.next_example().map_err(|error| error.to_string())? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn the_same_examples_are_read_from_every_format() {
        let expected = Ok(vec![vec![61.0, 38.0], vec![7.0, 37.0]]);
        let named = Some(&["age", "heat"][..]);
        assert_eq!(all(b"heat,ward,age\n38,north,61\n37,south,7\n", named, None), expected);
        assert_eq!(all(b"heat\tward\tage\n38\tnorth, \"old\t61\n37\tsouth\t7\n", named, None), expected);
        assert_eq!(all(b"a,b\n61,38\n7,37\n", None, None), expected);
        assert_eq!(all(b"heat,ward,age\n38,n,61\n37,s,7\n", None, named), expected);
        assert_eq!(all(b"[61, 38]\n\n {\"heat\": 37, \"age\": 7}\n", named, None), expected);
        let idx = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 61, 38, 7, 37];
        assert_eq!(all(&idx, None, None), expected);
        assert_eq!(all(b"age,heat\n", named, None), Ok(vec![]));
    }

    #[test]
    fn texts_are_lines_json_or_a_column() {
        let json = r#"{"input":{"text":{"preparation":{"tokenizer":"words","lowercase":false,"stop_words":[],
            "vocabulary":["sun","moon"],"length":1,"features":"words"}}},"classes":["no","yes"]}"#;
        let interface: Interface = serde_json::from_str(json).unwrap();
        let all = |text: &str, features: Option<&[String]>| {
            let source: Source = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
            let mut read = Unlabelled::read("asked".into(), source, &interface, 1, features).unwrap();
            let mut rows = Vec::new();
            while let Some(row) = read.next_example().unwrap() {
                rows.extend(row);
            }
            rows
        };
        assert_eq!(all("the moon\n\nsun, moon\n", None), [1.0, -1.0, 0.0]);
        assert_eq!(all("\"the moon\"\n{\"text\": \"sun\"}\n", None), [1.0, 0.0]);
        let named = ["title".to_owned()];
        assert_eq!(all("n,title\n1,\"sun, moon\"\n2,moon\n", Some(&named)), [0.0, 1.0]);
    }

    #[test]
    fn images_and_arrays_are_read_as_a_whole() {
        use crate::images::tests::png;
        let interface = Interface {
            input: Input::Image {
                height: 1,
                width: 2,
                channels: 3,
                mean: vec![0.0; 3],
                deviation: vec![1.0; 3],
            },
            ..interface(None)
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.png"), png(2, 1, [1, 2, 3])).unwrap();
        std::fs::write(folder.path().join("a.png"), png(4, 3, [9, 9, 9])).unwrap();
        let all = |path: &Path| -> Result<Vec<Vec<f32>>, String> {
            let read = Unlabelled::open(path, &interface, 6, None);
            let mut read = read.map_err(|error| error.to_string())?;
            let mut rows = Vec::new();
            while let Some(row) = read.next_example().map_err(|error| error.to_string())? {
                rows.push(row);
            }
            Ok(rows)
        };
        let b = vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
        assert_eq!(all(folder.path()), Ok(vec![vec![9.0; 6], b.clone()]));
        assert_eq!(all(&folder.path().join("b.png")), Ok(vec![b]));
        let array = folder.path().join("x.npy");
        std::fs::write(&array, crate::npy::tests::npy("|u1", "2, 1, 2, 3", &[7; 12])).unwrap();
        assert_eq!(all(&array), Ok(vec![vec![7.0; 6]; 2]));
        std::fs::write(&array, crate::npy::tests::npy("|u1", "2, 5", &[7; 10])).unwrap();
        assert!(all(&array).unwrap_err().ends_with("an image has 5 pixels, the model takes 6 numbers"));
        std::fs::write(folder.path().join("c.jpg"), b"hello").unwrap();
        assert!(all(folder.path()).unwrap_err().ends_with("c.jpg: is no image in PNG or JPEG"));
        let empty = tempfile::tempdir().unwrap();
        assert!(all(empty.path()).unwrap_err().contains("holds no file called .png"));
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        let named = Some(&["age", "heat"][..]);
        let refused = |bytes: &[u8], columns, features| all(bytes, columns, features).unwrap_err();
        assert_eq!(
            refused(b"age,heat\n1,2\nold,3\n", named, None),
            "asked, line 3, column `age`: `old` is not a finite number"
        );
        let missing = refused(b"age,heat\n1,\n", named, None);
        assert!(missing.starts_with("asked, line 2, column `heat`: the value is missing"), "{missing}");
        assert_eq!(refused(b"age\n1\n", named, None), "asked, line 1: no column `heat`; there are: age");
        let wide = refused(b"a,b,c\n1,2,3\n", None, None);
        assert!(wide.starts_with("asked, line 1: 3 columns, but the model takes 2 numbers"), "{wide}");
        let other = refused(b"a,b,c\n1,2,3\n", named, named);
        assert_eq!(other, "asked: 2 columns were named; the model takes age, heat");
        assert_eq!(
            refused(b"[1, 2]\n{\"age\": \"x\"}\n", named, None),
            "asked, line 2: column `age`: \"x\" is not a finite number"
        );
        let parquet = refused(b"PAR1\x15\x04", named, None);
        assert!(
            parquet.starts_with("asked: is a Parquet file, which is read for training only"),
            "{parquet}"
        );
        let broken = refused(b"[1, 2]\n[1, \n", None, None);
        assert!(broken.starts_with("asked, line 2: not JSON: EOF"), "{broken}");
        let columns = refused(b"[1, 2]\n", None, named);
        assert_eq!(columns, "asked: 2 columns were named; only the columns of a CSV file can be");
        let pixels = refused(&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3], None, None);
        assert_eq!(pixels, "asked: an image has 3 pixels, the model takes 2 numbers");
        let cut = refused(&[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3], None, None);
        assert_eq!(cut, "asked: promises 4 elements, but 3 follow");
        let more = refused(&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3], None, None);
        assert_eq!(more, "asked: promises 2 elements, but 3 follow");
    }
}
