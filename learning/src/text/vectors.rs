//! Vectors of words that somebody trained before.

use std::path::Path;

use data_encoding::BASE64;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{TextError, TextFault, Vocabulary, at, read_file};
use crate::npy;

/// A vector for each word of a vocabulary, by its number. A word without one has zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors(Array2<f32>);

impl Vectors {
    /// Reads vectors of `width` numbers. NPY, NPZ and safetensors hold one array `[words, width]` whose row *i* belongs to word *i*
    /// (`array` names it where there are several); any other file has a word and its numbers on each line, as those of GloVe and word2vec.
    ///
    /// # Errors
    /// [`TextError`], which names the file, and the line where there are any.
    pub fn read(
        path: &Path,
        array: Option<&str>,
        vocabulary: &Vocabulary,
        width: usize,
    ) -> Result<Self, TextError> {
        let start = std::fs::File::open(path)
            .and_then(|mut file| {
                let mut start = [0; 4];
                let read = std::io::Read::read(&mut file, &mut start)?;
                Ok(start[..read].to_vec())
            })
            .map_err(|error| at(path)(TextFault::Io(error)))?;
        if start.starts_with(b"\x93NUM") || npy::is_numpy(&start) {
            let array = npy::read(path, array)?;
            return Self::of_rows(&array.shape, array.values, vocabulary, width).map_err(at(path));
        }
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return safetensors(path, array, vocabulary, width).map_err(at(path));
        }
        lines(&read_file(path)?, vocabulary, width).map_err(at(path))
    }

    fn of_rows(
        shape: &[usize],
        values: Vec<f32>,
        vocabulary: &Vocabulary,
        width: usize,
    ) -> Result<Self, TextFault> {
        let expected = [vocabulary.len(), width];
        if shape != expected {
            return Err(TextFault::VectorShape { shape: shape.to_vec(), expected });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(TextFault::VectorNumber { row: at / width });
        }
        Array2::from_shape_vec(expected, values)
            .map(Self)
            .map_err(|_| TextFault::VectorShape { shape: shape.to_vec(), expected })
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.0.ncols()
    }

    /// All vectors, words x width.
    pub fn matrix(&self) -> &Array2<f32> {
        &self.0
    }
}

fn safetensors(
    path: &Path,
    name: Option<&str>,
    vocabulary: &Vocabulary,
    width: usize,
) -> Result<Vectors, TextFault> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| TextFault::Format(error.to_string()))?;
    let mut present: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    present.sort();
    let name = match (name, present.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => return Err(TextFault::Format(format!("holds the arrays {present:?}; say which one"))),
    };
    let tensor = tensors
        .tensor(name)
        .map_err(|_| TextFault::Format(format!("has no array `{name}`; there are {present:?}")))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(TextFault::Format(format!("holds numbers of type {}, not F32", tensor.dtype())));
    }
    let (values, _) = tensor.data().as_chunks();
    let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Vectors::of_rows(tensor.shape(), values, vocabulary, width)
}

fn lines(text: &str, vocabulary: &Vocabulary, width: usize) -> Result<Vectors, TextFault> {
    let mut matrix = Array2::zeros((vocabulary.len(), width));
    let known: std::collections::HashMap<&str, usize> =
        vocabulary.words().iter().enumerate().map(|(number, word)| (word.as_str(), number)).collect();
    let mut found = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let mut parts = line.trim_end().split(' ');
        let word = parts.next().unwrap_or_default();
        let numbers: Vec<&str> = parts.collect();
        // word2vec says in the first line how many words of which width follow.
        if index == 0 && numbers.len() == 1 && word.parse::<usize>().is_ok() && width != 1 {
            continue;
        }
        let Some(&number) = known.get(word) else { continue };
        let wrong = || TextFault::VectorLine { line: index + 1, width };
        if numbers.len() != width {
            return Err(wrong());
        }
        for (value, text) in matrix.row_mut(number).iter_mut().zip(numbers) {
            *value = text.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(wrong)?;
        }
        found += 1;
    }
    if found == 0 { Err(TextFault::NoVectors) } else { Ok(Vectors(matrix)) }
}

/// In JSON: the width, and the numbers as little-endian `f32` in Base64.
#[derive(Serialize, Deserialize)]
struct Encoded {
    width: usize,
    f32: String,
}

impl Serialize for Vectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|value| value.to_le_bytes()).collect();
        Encoded { width: self.width(), f32: BASE64.encode(&bytes) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Vectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Encoded { width, f32: text } = Encoded::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let (values, rest) = bytes.as_chunks();
        let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let rows = values.len().checked_div(width).unwrap_or(0);
        let whole = rest.is_empty() && rows > 0 && values.iter().all(|value| value.is_finite());
        let matrix = Array2::from_shape_vec((rows, width), values).map_err(D::Error::custom)?;
        if whole { Ok(Self(matrix)) } else { Err(D::Error::custom("these are no vectors of finite numbers")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy::tests::npy;

    fn read(name: &str, bytes: &[u8]) -> Result<Vectors, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let vocabulary = Vocabulary::new(vec!["sun".into(), "moon".into()]).unwrap();
        Vectors::read(&path, None, &vocabulary, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_vectors_are_read_from_every_format() {
        let expected = Vectors(ndarray::arr2(&[[1.0, 2.0], [-3.0, 0.5]]));
        let bytes: Vec<u8> = expected.0.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(read("v.npy", &npy("<f4", "2, 2", &bytes)), Ok(expected.clone()));
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2, 2], &bytes).unwrap();
        let file = safetensors::serialize([("any", view)], None).unwrap();
        assert_eq!(read("v.safetensors", &file), Ok(expected.clone()));
        let glove = "moon -3 0.5\nstar 9 9\nsun 1 2\n";
        assert_eq!(read("glove.txt", glove.as_bytes()), Ok(expected.clone()));
        assert_eq!(read("w2v.txt", format!("3 2\n{glove}").as_bytes()), Ok(expected.clone()));
        let json = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<Vectors>(&json).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |name, bytes: &[u8]| read(name, bytes).unwrap_err();
        assert!(error("v.npy", &npy("<f4", "1, 2", &[0; 8])).contains("shape [1, 2]"), "shape");
        assert!(error("v.txt", b"sun 1\n").contains("line 1: needs a word and 2 numbers"), "line");
        assert!(error("v.txt", b"sun 1 inf\n").contains("line 1"), "infinite");
        assert!(error("v.txt", b"star 1 2\n").contains("none of the words"), "none");
        let nan: Vec<u8> = [1.0, 1.0, f32::NAN, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert!(error("v.npy", &npy("<f4", "2, 2", &nan)).contains("row 1"), "row");
    }
}
