//! The checksums that numbers of people, cards and accounts carry.

/// The digits of `text`, whatever stands between them.
pub(super) fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|character| character.to_digit(10)).collect()
}

/// The sum of `digits` times `weights`, pairwise.
pub(super) fn weighted(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// ISO/IEC 7812-1, annex B: every second digit from the right but one doubled.
pub(super) fn luhn(digits: &[u32]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| if at % 2 == 0 { digit } else { doubled(digit) })
        .sum();
    sum.is_multiple_of(10)
}

/// The remainder by 97 of a number in which letters count from A = 10 (ISO/IEC 7064, mod 97-10).
pub(super) fn mod_97(characters: impl IntoIterator<Item = char>) -> Option<u32> {
    characters.into_iter().try_fold(0, |remainder, character| {
        let value = character.to_digit(36)?;
        Some((remainder * if value < 10 { 10 } else { 100 } + value) % 97)
    })
}

/// ISO/IEC 7064, mod 11-10.
pub(super) fn mod_11_10(digits: &[u32]) -> bool {
    let Some((check, digits)) = digits.split_last() else { return false };
    let product = digits.iter().fold(10, |product, digit| match (digit + product) % 10 {
        0 => 20 % 11,
        sum => sum * 2 % 11,
    });
    (11 - product) % 10 == *check
}

/// Verhoeff, 1969: the dihedral group of order ten.
pub(super) fn verhoeff(digits: &[u32]) -> bool {
    digits.iter().rev().enumerate().fold(0, |check, (at, &digit)| {
        let permuted = (0..at % 8).fold(digit, |digit, _| PERMUTATION[digit as usize]);
        product(check, permuted)
    }) == 0
}

/// The product in the dihedral group: 0 to 4 are rotations, 5 to 9 reflections.
fn product(left: u32, right: u32) -> u32 {
    match (left < 5, right < 5) {
        (true, true) => (left + right) % 5,
        (true, false) => (left + right - 5) % 5 + 5,
        (false, true) => (left - 5 + 5 - right) % 5 + 5,
        (false, false) => (left + 5 - right) % 5,
    }
}

const PERMUTATION: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_pass_and_any_other_last_digit_fails() {
        type Check = fn(&[u32]) -> bool;
        let known: [(Check, &str); 4] = [
            (luhn, "79927398713"),
            (mod_11_10, "86095742719"),
            (verhoeff, "2363"),
            (
                |digits| mod_97(digits.iter().filter_map(|&digit| char::from_digit(digit, 10))) == Some(1),
                "0000000000098",
            ),
        ];
        for (check, number) in known {
            let mut digits = digits(number);
            assert!(check(&digits), "{number}");
            for _ in 0..9 {
                let last = digits.last_mut().unwrap();
                *last = (*last + 1) % 10;
                assert!(!check(&digits), "{digits:?} beside {number}");
            }
        }
    }

    #[test]
    fn verhoeff_notices_every_swap_of_neighbours() {
        let number = digits("2363");
        for at in 0..3 {
            let mut swapped = number.clone();
            swapped.swap(at, at + 1);
            assert_eq!(verhoeff(&swapped), swapped == number, "{swapped:?}");
        }
    }
}
