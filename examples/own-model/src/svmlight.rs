//! Files as SVMlight and LIBSVM write them: an example on each line, its label, numbers by their index from 1, and what is to be
//! said of it. Here that is whose example it is.
//!
//! ```text
//! 2 1:0.53 2:-1.25 # client-7
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;

use ndarray::{Array1, Array2};
use skep_learning::{Dataset, Owners};

/// Reads the file `path`, whose labels are below `classes`. Numbers that a line leaves out are 0.
///
/// # Errors
/// What is wrong, and on which line.
pub fn read(path: &Path, classes: usize) -> Result<Dataset, Box<dyn Error + Send + Sync>> {
    let text = fs::read_to_string(path)?;
    let mut examples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        examples.push(example(line).map_err(|problem| format!("line {}: {problem}", number + 1))?);
    }
    let width =
        examples.iter().flat_map(|example| &example.numbers).map(|(index, _)| *index).max().unwrap_or(0);
    let mut features = Array2::zeros((examples.len(), width));
    for (row, example) in examples.iter().enumerate() {
        for &(index, value) in &example.numbers {
            features[[row, index - 1]] = value;
        }
    }
    let labels: Array1<u32> = examples.iter().map(|example| example.label).collect();
    let dataset = Dataset::new(features, labels, classes)?;
    if examples.iter().any(|example| example.owner.is_none()) {
        return Ok(dataset);
    }
    let mut owners = Owners::default();
    examples.iter().flat_map(|example| example.owner).for_each(|owner| owners.push(owner));
    Ok(dataset.owned_by(owners)?)
}

struct Example<'a> {
    label: u32,
    numbers: Vec<(usize, f32)>,
    owner: Option<&'a str>,
}

fn example(line: &str) -> Result<Example<'_>, String> {
    let (numbers, owner) = match line.split_once('#') {
        Some((numbers, owner)) => (numbers, Some(owner.trim())),
        None => (line, None),
    };
    let mut words = numbers.split_whitespace();
    let label = words.next().ok_or("is empty")?;
    let label = label.parse().map_err(|_| format!("the label `{label}` is no whole number from 0 on"))?;
    let number = |word: &str| {
        let (index, value) = word.split_once(':')?;
        Some((index.parse().ok().filter(|&index| index >= 1)?, value.parse().ok()?))
    };
    let numbers = words
        .map(|word| {
            number(word).ok_or_else(|| format!("`{word}` is no INDEX:NUMBER with an index from 1 on"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Example { label, numbers, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_example_of_somebody() {
        let read = example("2 1:0.5 3:-1 # ann").unwrap();
        assert_eq!((read.label, read.numbers, read.owner), (2, vec![(1, 0.5), (3, -1.0)], Some("ann")));
        assert_eq!(example("0").unwrap().owner, None);
        for (line, problem) in [("", "is empty"), ("a 1:2", "the label `a`"), ("1 0:2", "`0:2` is no")] {
            let told = example(line).err().unwrap();
            assert!(told.starts_with(problem), "{told}");
        }
    }
}
