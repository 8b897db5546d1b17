//! What the labels of a data set stand for.

/// The classes that labels name, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    /// So many; a label is an integer from 0 to below their number.
    Numbers(usize),
    /// A label is one of these texts.
    Names(Vec<String>),
}

impl Classes {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Classes::Numbers(count) => *count,
            Classes::Names(names) => names.len(),
        }
    }

    /// What a class is called; its number where it has no name. `class` is below [`Classes::count`].
    pub fn name(&self, class: usize) -> String {
        match self {
            Classes::Numbers(_) => class.to_string(),
            Classes::Names(names) => names[class].clone(),
        }
    }

    /// The class that a label names, if there is one.
    pub fn of_label(&self, label: &str) -> Option<u32> {
        match self {
            Classes::Numbers(count) => label.parse().ok().filter(|&class: &u32| (class as usize) < *count),
            Classes::Names(names) => names.iter().position(|name| name == label).map(|class| class as u32),
        }
    }

    /// What a label may be, as the end of a sentence.
    pub(crate) fn expected(&self) -> String {
        match self {
            Classes::Numbers(count) => format!("an integer from 0 to below {count}"),
            Classes::Names(names) => {
                let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
                let more = if names.len() > SHOWN { ", ..." } else { "" };
                format!("one of {}{more}", shown.join(", "))
            }
        }
    }

    /// The classes that these labels suggest: numbers if they are all integers from 0 without a gap, else names in
    /// numeric or alphabetic order.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = labels.into_iter().map(str::to_owned).collect();
        match names.iter().map(|name| name.parse::<f64>().ok()).collect::<Option<Vec<_>>>() {
            Some(_) => names.sort_by(|one, other| number(one).total_cmp(&number(other)).then(one.cmp(other))),
            None => names.sort(),
        }
        names.dedup();
        let counted = names.iter().enumerate().all(|(class, name)| *name == class.to_string());
        if counted { Classes::Numbers(names.len()) } else { Classes::Names(names) }
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_count_from_zero_are_numbers_and_others_names() {
        assert_eq!(Classes::of_labels(["2", "0", "1", "2"]), Classes::Numbers(3));
        let names = |names: &[&str]| Classes::Names(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(Classes::of_labels(["10", "9"]), names(&["9", "10"]));
        assert_eq!(Classes::of_labels(["1", "2"]), names(&["1", "2"]));
        assert_eq!(Classes::of_labels(["yes", "no", "no"]), names(&["no", "yes"]));
        assert_eq!(Classes::of_labels(["0", "01"]), names(&["0", "01"]));
    }

    #[test]
    fn a_label_is_found_by_number_or_by_name() {
        let numbers = Classes::Numbers(2);
        assert_eq!(
            (numbers.of_label("1"), numbers.of_label("2"), numbers.of_label("no")),
            (Some(1), None, None)
        );
        let names = Classes::of_labels(["yes", "no"]);
        assert_eq!((names.of_label("yes"), names.of_label("1")), (Some(1), None));
        assert_eq!(names.expected(), "one of `no`, `yes`");
        assert_eq!((numbers.name(1), names.name(1)), ("1".to_owned(), "yes".to_owned()));
    }
}
