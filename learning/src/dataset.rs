//! Examples in memory, with labels or with numbers to predict, and views of them that share one copy.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{Array1, Array2, Axis, CowArray, Ix2, concatenate};
use thiserror::Error;

use crate::Target;
use crate::kernel::are_finite;
use crate::pixels::{Pixels, Scaling};

/// Examples: one row of features each, with a label for classification or a number for regression.
///
/// Immutable once built, so whoever holds row numbers of it may rely on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    features: Features,
    labels: Array1<u32>,
    classes: usize,
    /// What is predicted in place of classes; then every example is of the only class there is.
    numbers: Option<Numbers>,
    /// How the features were made of what stands in files, where that is not plain.
    encoding: Option<[u8; 32]>,
    owners: Option<Owners>,
}

/// The number of each example, in its own unit, and what it is.
#[derive(Debug, Clone, PartialEq)]
struct Numbers {
    values: Array1<f32>,
    target: Target,
}

/// How the features of examples are kept.
#[derive(Debug, Clone, PartialEq)]
enum Features {
    /// As what the model sees.
    Numbers(Array2<f32>),
    /// As the bytes that they were, a quarter of the memory.
    Pixels(Pixels),
}

/// Whose example each row is, by names that are numbered in the order in which they appear.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Owners {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    of_rows: Vec<u32>,
}

impl Owners {
    /// Says whose the next row is.
    pub fn push(&mut self, name: &str) {
        let number = self.numbers.get(name).copied().unwrap_or_else(|| {
            let number = self.names.len() as u32;
            self.names.push(name.to_owned());
            self.numbers.insert(name.to_owned(), number);
            number
        });
        self.of_rows.push(number);
    }

    /// The owners' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of each row's owner, below the number of names.
    pub fn of_rows(&self) -> &[u32] {
        &self.of_rows
    }
}

/// Why examples do not make a [`Dataset`], a [`Subset`] or a [`Split`](crate::Split).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DatasetError {
    /// No row, or rows without a column.
    #[error("a data set needs at least one example and one feature, got {rows} x {columns}")]
    Empty {
        /// Number of examples given.
        rows: usize,
        /// Number of features given.
        columns: usize,
    },
    /// Features and labels disagree on the number of examples.
    #[error("{features} rows of features but {labels} labels")]
    LengthMismatch {
        /// Number of feature rows.
        features: usize,
        /// Number of labels.
        labels: usize,
    },
    /// Two data sets do not make one.
    #[error("the data sets have different numbers of features or classes, or other numbers to predict")]
    Unlike,
    /// Not every row has an owner.
    #[error("{examples} examples but {owners} owners of one")]
    OwnerMismatch {
        /// Number of examples.
        examples: usize,
        /// Number of owners given.
        owners: usize,
    },
    /// A number to predict is infinite, none, or beyond its bounds.
    #[error("row {row}: {value} is no number that can be predicted")]
    Number {
        /// Row, from 0.
        row: usize,
        /// The number found, as text.
        value: String,
    },
    /// A label is not below the number of classes.
    #[error("row {row}: label {label} is not below the number of classes, {classes}")]
    LabelOutOfRange {
        /// Row, from 0.
        row: usize,
        /// The label found.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A feature is infinite or not a number.
    #[error("row {row}, feature {column}: {value} is not a finite number")]
    NotFinite {
        /// Row, from 0.
        row: usize,
        /// Feature, from 0.
        column: usize,
        /// The value found, as text.
        value: String,
    },
    /// A subset names a row that the data set does not have.
    #[error("row {row} is outside the data set, which has {examples} examples")]
    RowOutOfRange {
        /// The row asked for, from 0.
        row: usize,
        /// Number of examples of the data set.
        examples: usize,
    },
    /// Too few examples to take a part of them out, or too many of them.
    #[error(
        "a part {part} of {examples} examples cannot be taken out of them: some must be taken, and every client must keep one"
    )]
    EmptyPart {
        /// The part asked for.
        part: String,
        /// Number of examples that there are.
        examples: usize,
    },
    /// Holding out the last of every `every` rows leaves a side empty.
    #[error("holding out the last of every {every} rows of {examples} leaves no test or no train rows")]
    EmptySplit {
        /// Size of a group of rows, of which the last is held out.
        every: usize,
        /// Number of examples of the data set.
        examples: usize,
    },
}

impl Dataset {
    /// A data set of `features` (examples x features) and one label below `classes` per row.
    ///
    /// # Errors
    /// [`DatasetError`] if there is nothing in it, lengths differ, a label is out of range, or a
    /// feature is not finite.
    pub fn new(features: Array2<f32>, labels: Array1<u32>, classes: usize) -> Result<Self, DatasetError> {
        let (rows, columns) = features.dim();
        if rows == 0 || columns == 0 {
            return Err(DatasetError::Empty { rows, columns });
        }
        if rows != labels.len() {
            return Err(DatasetError::LengthMismatch { features: rows, labels: labels.len() });
        }
        check_labels(&labels, classes)?;
        check_finite(&features)?;
        // Copies only what lies otherwise: a large data set is not in memory twice.
        let features =
            if features.is_standard_layout() { features } else { features.as_standard_layout().into_owned() };
        Ok(Self {
            features: Features::Numbers(features),
            labels,
            classes,
            numbers: None,
            encoding: None,
            owners: None,
        })
    }

    /// A data set of `features` and the number of each row that is to be predicted, in its own unit.
    ///
    /// # Errors
    /// [`DatasetError`] if there is nothing in it, lengths differ, a feature or a scaled number is not finite, or a number is
    /// beyond its bounds.
    pub fn of_numbers(
        features: Array2<f32>,
        values: Array1<f32>,
        target: Target,
    ) -> Result<Self, DatasetError> {
        if features.nrows() != values.len() {
            return Err(DatasetError::LengthMismatch { features: features.nrows(), labels: values.len() });
        }
        if let Some((row, value)) = values.iter().enumerate().find(|(_, value)| !target.takes(**value)) {
            return Err(DatasetError::Number { row, value: value.to_string() });
        }
        let classless = Self::new(features, Array1::zeros(values.len()), 1)?;
        Ok(Self { numbers: Some(Numbers { values, target }), ..classless })
    }

    /// A data set of images, each of so many bytes, that stay bytes until somebody looks at them: one label below `classes`
    /// for each.
    ///
    /// # Errors
    /// [`DatasetError`] if there is nothing in it, lengths differ, or a label is out of range.
    pub fn of_pixels(
        bytes: Vec<u8>,
        scaling: Scaling,
        labels: Array1<u32>,
        classes: usize,
    ) -> Result<Self, DatasetError> {
        let (rows, columns) = (labels.len(), bytes.len().checked_div(labels.len()).unwrap_or(0));
        if rows == 0 || columns == 0 {
            return Err(DatasetError::Empty { rows, columns });
        }
        if rows * columns != bytes.len() {
            return Err(DatasetError::LengthMismatch { features: bytes.len(), labels: rows });
        }
        check_labels(&labels, classes)?;
        let features = Features::Pixels(Pixels::new(bytes, columns, scaling));
        Ok(Self { features, labels, classes, numbers: None, encoding: None, owners: None })
    }

    /// The same data set, whose features were made in the way that has this digest.
    #[must_use]
    pub fn encoded_as(self, encoding: Option<[u8; 32]>) -> Self {
        Self { encoding, ..self }
    }

    /// The digest of how the features were made of what stands in files; none where they stand there as they are.
    pub fn encoding(&self) -> Option<[u8; 32]> {
        self.encoding
    }

    /// The same data set, each row of which belongs to somebody.
    ///
    /// # Errors
    /// [`DatasetError::OwnerMismatch`].
    pub fn owned_by(self, owners: Owners) -> Result<Self, DatasetError> {
        if owners.of_rows.len() != self.examples() {
            return Err(DatasetError::OwnerMismatch {
                examples: self.examples(),
                owners: owners.of_rows.len(),
            });
        }
        Ok(Self { owners: Some(owners), ..self })
    }

    /// The same with other features: `change` gets all of them, one row after the other.
    ///
    /// # Errors
    /// [`DatasetError::NotFinite`] when it makes one that is no finite number.
    pub(crate) fn with_features(self, change: impl FnOnce(&mut [f32])) -> Result<Self, DatasetError> {
        let mut numbers = match self.features {
            Features::Numbers(numbers) => numbers,
            Features::Pixels(_) => self.features().into_owned(),
        };
        change(numbers.as_slice_mut().expect("made in standard layout"));
        check_finite(&numbers)?;
        Ok(Self { features: Features::Numbers(numbers), ..self })
    }

    /// Whose example each row is, if anybody's.
    pub fn owners(&self) -> Option<&Owners> {
        self.owners.as_ref()
    }

    /// Number of examples, at least 1.
    pub fn examples(&self) -> usize {
        self.labels.len()
    }

    /// Number of features of an example, at least 1.
    pub fn inputs(&self) -> usize {
        match &self.features {
            Features::Numbers(numbers) => numbers.ncols(),
            Features::Pixels(pixels) => pixels.of_image(),
        }
    }

    /// What number is predicted, if no class is.
    pub fn target(&self) -> Option<&Target> {
        self.numbers.as_ref().map(|numbers| &numbers.target)
    }

    /// Number of classes; every label is below it. One where a number is predicted.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All features as the model sees them, examples x inputs, row-major and finite; made for the purpose if they are kept
    /// as bytes.
    pub fn features(&self) -> CowArray<'_, f32, Ix2> {
        match &self.features {
            Features::Numbers(numbers) => numbers.into(),
            Features::Pixels(_) => {
                let mut numbers = Array2::zeros((self.examples(), self.inputs()));
                for (row, mut into) in numbers.outer_iter_mut().enumerate() {
                    self.copy_row(row, into.as_slice_mut().expect("rows of fresh memory are contiguous"));
                }
                numbers.into()
            }
        }
    }

    /// Makes `into`, of so many numbers as an example has, those of the row, which is in range by contract.
    fn copy_row(&self, row: usize, into: &mut [f32]) {
        match &self.features {
            Features::Numbers(numbers) => {
                let numbers = numbers.as_slice().expect("a data set is in standard layout");
                into.copy_from_slice(&numbers[row * into.len()..][..into.len()]);
            }
            Features::Pixels(pixels) => pixels.copy_image(row, into),
        }
    }

    /// All labels, one per example; zeros where a number is predicted.
    pub fn labels(&self) -> &Array1<u32> {
        &self.labels
    }

    /// A data set of its own with copies of `rows`, in that order, without their owners. See [`Subset`] for a view.
    ///
    /// # Errors
    /// [`DatasetError::RowOutOfRange`], or [`DatasetError::Empty`] if `rows` is empty.
    pub fn rows(&self, rows: &[usize]) -> Result<Self, DatasetError> {
        self.check_rows(rows)?;
        let labels = self.labels.select(Axis(0), rows);
        let selected = match &self.features {
            Features::Numbers(numbers) => Self::new(numbers.select(Axis(0), rows), labels, self.classes),
            Features::Pixels(pixels) => {
                Self::of_pixels(pixels.select(rows), pixels.scaling().clone(), labels, self.classes)
            }
        }?;
        let select = |numbers: &Numbers| Numbers {
            values: numbers.values.select(Axis(0), rows),
            target: numbers.target.clone(),
        };
        Ok(Self { numbers: self.numbers.as_ref().map(select), encoding: self.encoding, ..selected })
    }

    /// A data set with copies of the examples of one subset and then of another, of as many features and the same classes or target. Nobody owns
    /// its rows.
    ///
    /// # Errors
    /// [`DatasetError::Unlike`] if features or classes differ in number, [`DatasetError::Empty`].
    pub fn joined(first: &Subset, second: &Subset) -> Result<Self, DatasetError> {
        let [one, other] = [first, second].map(|subset| subset.dataset.rows(&subset.rows));
        let (one, other) = (one?, other?);
        if one.inputs() != other.inputs() || one.classes != other.classes || one.target() != other.target() {
            return Err(DatasetError::Unlike);
        }
        let features = concatenate![Axis(0), one.features(), other.features()];
        let joined = match (&one.numbers, &other.numbers) {
            (Some(first), Some(second)) => {
                let values = concatenate![Axis(0), first.values, second.values];
                Self::of_numbers(features, values, first.target.clone())
            }
            _ => Self::new(features, concatenate![Axis(0), one.labels, other.labels], one.classes),
        };
        Ok(joined?.encoded_as(one.encoding))
    }

    fn check_rows(&self, rows: &[usize]) -> Result<(), DatasetError> {
        let examples = self.examples();
        match rows.iter().find(|&&row| row >= examples) {
            Some(&row) => Err(DatasetError::RowOutOfRange { row, examples }),
            None => Ok(()),
        }
    }
}

/// Some rows of a shared [`Dataset`]: a client's share of it, or its test rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Subset {
    dataset: Arc<Dataset>,
    rows: Arc<[usize]>,
}

impl Subset {
    /// The given `rows` of `dataset`, in that order. May be empty; may repeat a row.
    ///
    /// # Errors
    /// [`DatasetError::RowOutOfRange`].
    pub fn new(dataset: Arc<Dataset>, rows: Vec<usize>) -> Result<Self, DatasetError> {
        dataset.check_rows(&rows)?;
        Ok(Self { dataset, rows: rows.into() })
    }

    /// Every row of `dataset`, in order.
    pub fn all(dataset: Arc<Dataset>) -> Self {
        let rows = (0..dataset.examples()).collect();
        Self { dataset, rows }
    }

    /// The data set that the rows belong to.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The row numbers in the data set, each below its number of examples.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Number of examples in the subset.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the subset has no examples.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The labels of the subset, in its order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.rows.iter().map(|&row| self.dataset.labels[row])
    }

    /// Number of examples of each class, one entry per class.
    pub fn label_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.dataset.classes];
        for label in self.labels() {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Features of the subset's examples at `positions` (indices into [`Subset::rows`]), one row
    /// after the other: `into` has room for `positions.len() * inputs` numbers. Positions are in range by contract.
    pub(crate) fn gather_into(&self, positions: &[usize], into: &mut [f32]) {
        for (into, &position) in into.chunks_exact_mut(self.dataset.inputs()).zip(positions) {
            self.dataset.copy_row(self.rows[position], into);
        }
    }

    /// [`Subset::gather_into`] fresh memory.
    pub(crate) fn gather(&self, positions: &[usize]) -> Vec<f32> {
        let mut gathered = vec![0.0; positions.len() * self.dataset.inputs()];
        self.gather_into(positions, &mut gathered);
        gathered
    }

    /// The number, in its own unit, of the subset's example at `position`, which is in range by contract; 0 where classes are told
    /// apart.
    pub(crate) fn number(&self, position: usize) -> f32 {
        self.dataset.numbers.as_ref().map_or(0.0, |numbers| numbers.values[self.rows[position]])
    }

    /// Label of the subset's example at `position`, which is in range by contract.
    pub(crate) fn label(&self, position: usize) -> usize {
        self.dataset.labels[self.rows[position]] as usize
    }
}

fn check_labels(labels: &Array1<u32>, classes: usize) -> Result<(), DatasetError> {
    for (row, &label) in labels.iter().enumerate() {
        if label as usize >= classes {
            return Err(DatasetError::LabelOutOfRange { row, label, classes });
        }
    }
    Ok(())
}

fn check_finite(features: &Array2<f32>) -> Result<(), DatasetError> {
    if features.as_slice_memory_order().is_some_and(are_finite) {
        return Ok(());
    }
    for ((row, column), value) in features.indexed_iter() {
        if !value.is_finite() {
            return Err(DatasetError::NotFinite { row, column, value: value.to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    fn three_rows() -> Dataset {
        let features = arr2(&[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]);
        Dataset::new(features, arr1(&[0, 1, 1]), 2).unwrap()
    }

    #[test]
    fn a_dataset_refuses_what_it_cannot_hold_and_says_where() {
        let features = || arr2(&[[0.0, 1.0], [2.0, 3.0]]);
        assert_eq!(
            Dataset::new(Array2::zeros((0, 2)), arr1(&[]), 2).unwrap_err(),
            DatasetError::Empty { rows: 0, columns: 2 }
        );
        assert_eq!(
            Dataset::new(features(), arr1(&[0]), 2).unwrap_err(),
            DatasetError::LengthMismatch { features: 2, labels: 1 }
        );
        assert_eq!(
            Dataset::new(features(), arr1(&[0, 2]), 2).unwrap_err(),
            DatasetError::LabelOutOfRange { row: 1, label: 2, classes: 2 }
        );
        assert_eq!(
            Dataset::new(arr2(&[[0.0, f32::NAN]]), arr1(&[0]), 2).unwrap_err(),
            DatasetError::NotFinite { row: 0, column: 1, value: "NaN".into() }
        );
    }

    #[test]
    fn a_subset_sees_its_rows_in_its_own_order() {
        let subset = Subset::new(Arc::new(three_rows()), vec![2, 0]).unwrap();
        assert_eq!(subset.gather(&[0, 1]), [4.0, 5.0, 0.0, 1.0]);
        assert_eq!(subset.labels().collect::<Vec<_>>(), [1, 0]);
        assert_eq!(subset.label_counts(), [1, 1]);
        assert_eq!(
            Subset::new(Arc::new(three_rows()), vec![1, 3]).unwrap_err(),
            DatasetError::RowOutOfRange { row: 3, examples: 3 }
        );
    }

    #[test]
    fn rows_are_copied_in_the_order_asked_for_whatever_the_memory_layout() {
        let by_column = arr2(&[[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]).reversed_axes();
        let dataset = Dataset::new(by_column, arr1(&[0, 1, 1]), 2).unwrap();
        assert_eq!(dataset, three_rows());
        let copied = dataset.rows(&[2, 1]).unwrap();
        assert_eq!(copied.features(), arr2(&[[4.0, 5.0], [2.0, 3.0]]));
        assert_eq!(copied.labels(), arr1(&[1, 1]));
        let whole = Arc::new(dataset);
        let [last, first] = [vec![2], vec![0, 1]].map(|rows| Subset::new(whole.clone(), rows).unwrap());
        let joined = Dataset::joined(&last, &first).unwrap();
        assert_eq!(joined.features(), arr2(&[[4.0, 5.0], [0.0, 1.0], [2.0, 3.0]]));
        assert_eq!(joined.labels(), arr1(&[1, 0, 1]));
    }
}
