//! A data set in disjoint parts: what is trained on, what choices are made by, and what the result is measured with.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Dataset, DatasetError, Subset};

/// A data set in disjoint parts.
#[derive(Debug, Clone)]
pub struct Split {
    /// Rows to train on.
    pub train: Subset,
    /// Rows that are never trained on, by which choices are made: when to stop, and which run of many is best.
    pub validation: Option<Subset>,
    /// Rows that are never trained on, and by which nothing is chosen where there are others to choose by.
    pub test: Subset,
}

impl Split {
    /// What is trained on, and what is measured with.
    pub fn new(train: Subset, test: Subset) -> Self {
        Self { train, validation: None, test }
    }

    /// Holds out the last row of every group of `every` consecutive rows, of each owner where rows have
    /// owners: so nobody is left without rows to train on. Needs no generator, so it never changes.
    ///
    /// # Errors
    /// [`DatasetError::EmptySplit`] if `every` is below 2 or above the number of examples.
    pub fn hold_out(dataset: Arc<Dataset>, every: usize) -> Result<Self, DatasetError> {
        let examples = dataset.examples();
        if every < 2 || every > examples {
            return Err(DatasetError::EmptySplit { every, examples });
        }
        let mut seen = vec![0_usize; dataset.owners().map_or(1, |owners| owners.names().len())];
        let (test, train): (Vec<_>, Vec<_>) = (0..examples).partition(|&row| {
            let seen = &mut seen[owner(&dataset, row)];
            *seen += 1;
            seen.is_multiple_of(every)
        });
        if test.is_empty() {
            return Err(DatasetError::EmptySplit { every, examples });
        }
        Ok(Self::new(Subset::new(dataset.clone(), train)?, Subset::new(dataset, test)?))
    }

    /// The same with this part of the rows to train on, above 0 and below 1, rounded down, taken out to make choices by: at
    /// random, as `key` says, but never the last row of an owner.
    ///
    /// # Errors
    /// [`DatasetError::EmptyPart`] if there are not so many to take, or none.
    pub fn with_validation(self, part: f64, key: [u8; 32]) -> Result<Self, DatasetError> {
        let (dataset, rows) = (self.train.dataset().clone(), self.train.rows());
        let wanted = (part * rows.len() as f64) as usize;
        let mut left = vec![0_usize; dataset.owners().map_or(1, |owners| owners.names().len())];
        rows.iter().for_each(|&row| left[owner(&dataset, row)] += 1);
        let mut positions: Vec<usize> = (0..rows.len()).collect();
        positions.shuffle(&mut ChaCha8Rng::from_seed(key));
        let (mut taken, mut count) = (vec![false; rows.len()], 0);
        for position in positions {
            let left = &mut left[owner(&dataset, rows[position])];
            if count < wanted && *left > 1 {
                *left -= 1;
                count += 1;
                taken[position] = true;
            }
        }
        if count == 0 || count < wanted {
            return Err(DatasetError::EmptyPart { part: part.to_string(), examples: rows.len() });
        }
        let (validation, train): (Vec<_>, Vec<_>) = rows.iter().zip(taken).partition(|(_, taken)| *taken);
        let of = |rows: Vec<(&usize, bool)>| {
            Subset::new(dataset.clone(), rows.into_iter().map(|(&row, _)| row).collect())
        };
        Ok(Self { train: of(train)?, validation: Some(of(validation)?), test: self.test })
    }

    /// What models are measured with after each round, as long as choices are made.
    pub fn measured(&self) -> &Subset {
        self.validation.as_ref().unwrap_or(&self.test)
    }

    /// Row numbers of the test examples, ascending: what identifies the held-out set.
    pub fn test_ids(&self) -> &[usize] {
        self.test.rows()
    }
}

/// The number of whose row it is; 0 where nobody owns any.
fn owner(dataset: &Dataset, row: usize) -> usize {
    dataset.owners().map_or(0, |owners| owners.of_rows()[row] as usize)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::{Owners, digits};

    /// Rows of these owners.
    fn owned(names: &[&str]) -> Arc<Dataset> {
        let mut owners = Owners::default();
        names.iter().for_each(|name| owners.push(name));
        let dataset = Dataset::new(Array2::zeros((names.len(), 1)), Array1::zeros(names.len()), 2).unwrap();
        Arc::new(dataset.owned_by(owners).unwrap())
    }

    #[test]
    fn rows_are_held_out_of_each_owner_so_that_nobody_is_left_without() {
        let dataset = owned(&["a", "b", "a", "b", "a", "c"]);
        let split = Split::hold_out(dataset.clone(), 2).unwrap();
        assert_eq!((split.train.rows(), split.test_ids()), (&[0, 1, 4, 5][..], &[2, 3][..]));
        assert!(matches!(Split::hold_out(dataset, 4), Err(DatasetError::EmptySplit { .. })));
    }

    #[test]
    fn holding_out_needs_rows_on_both_sides() {
        let dataset = Arc::new(Dataset::new(Array2::zeros((3, 1)), Array1::zeros(3), 2).unwrap());
        let split = Split::hold_out(dataset.clone(), 3).unwrap();
        assert_eq!((split.train.rows(), split.test_ids()), (&[0, 1][..], &[2][..]));
        for every in [0, 1, 4] {
            assert!(matches!(Split::hold_out(dataset.clone(), every), Err(DatasetError::EmptySplit { .. })));
        }
    }

    #[test]
    fn what_choices_are_made_by_is_taken_out_of_what_is_trained_on() {
        let rows = |part, key| {
            let split = digits::load().with_validation(part, [key; 32]).unwrap();
            (split.train.rows().to_vec(), split.validation.unwrap().rows().to_vec())
        };
        let (train, validation) = rows(0.1, 1);
        assert_eq!((train.len(), validation.len()), (1295, 143));
        assert!(train.is_sorted() && validation.is_sorted());
        let mut all = [train.clone(), validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, digits::load().train.rows());
        assert_eq!(rows(0.1, 1), (train.clone(), validation.clone()));
        let other = rows(0.1, 2).1;
        // 143 · 143 / 1438 of them are expected in both.
        assert!(other.iter().filter(|row| validation.contains(row)).count() < 40);
    }

    #[test]
    fn nobody_is_left_without_rows_to_train_on() {
        let whole = |names: &[&str]| {
            let rows = Subset::all(owned(names));
            Split::new(rows.clone(), rows)
        };
        let names = ["a", "b", "b", "b", "c", "c"];
        for key in 0..20 {
            let split = whole(&names).with_validation(0.5, [key; 32]).unwrap();
            let mut owners: Vec<_> = split.train.rows().iter().map(|&row| names[row]).collect();
            owners.dedup();
            assert_eq!(owners, ["a", "b", "c"]);
            assert_eq!(split.measured().len(), 3);
        }
        for (names, part) in [(&["a", "b", "b"][..], 0.9), (&names, 0.1)] {
            let refused = whole(names).with_validation(part, [1; 32]).unwrap_err();
            assert!(matches!(refused, DatasetError::EmptyPart { .. }), "{refused}");
        }
    }
}
