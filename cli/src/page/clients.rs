//! Which client of a simulation has how many examples of which class.

use std::fmt::Write;

use super::words::{count, escaped};

/// The distribution as a picture: clients beside one another, classes below one another. `counts` holds the number of examples of
/// each class, by client. Clients that have most of the same class stand together.
pub(crate) fn clients(counts: &[Vec<usize>], classes: &[String]) -> String {
    let mut sorted: Vec<&Vec<usize>> = counts.iter().collect();
    sorted.sort_by_key(|classes| {
        let most =
            classes.iter().enumerate().max_by_key(|&(class, &examples)| (examples, usize::MAX - class));
        most.map(|(class, &examples)| (class, usize::MAX - examples))
    });
    let every = sorted.len().div_ceil((CELLS / classes.len().max(1)).max(1)).max(1);
    let shown: Vec<&Vec<usize>> = sorted.into_iter().step_by(every).collect();
    let mut html = format!(
        "<figure class=\"card\"><figcaption><h3>Examples by client and class</h3><output>{}</output></figcaption>\n<div class=\"map\">",
        told(counts, every)
    );
    html += &format!("<div class=\"plot sizes\">{}</div>\n", sizes(&shown));
    let _ = write!(html, "<div class=\"plot rows\" style=\"--rows:{}\">", classes.len());
    let labelled = classes.len().div_ceil(LABELS).max(1);
    for (class, name) in classes.iter().enumerate().step_by(labelled) {
        let middle = 100.0 * (1.0 - (class as f64 + 0.5) / classes.len() as f64);
        let _ = write!(html, "<span class=\"y\" style=\"bottom:{middle:.2}%\">{}</span>", escaped(name));
    }
    html += &cells(&shown, classes.len());
    html + "<span class=\"x\">clients, those with most of the same class together</span></div></div>\n</figure>\n"
}

fn told(counts: &[Vec<usize>], every: usize) -> String {
    let mut sizes: Vec<usize> = counts.iter().map(|classes| classes.iter().sum()).collect();
    sizes.sort_unstable();
    let (Some(least), Some(median), Some(most)) = (sizes.first(), sizes.get(sizes.len() / 2), sizes.last())
    else {
        return String::new();
    };
    let kinds: usize =
        counts.iter().map(|classes| classes.iter().filter(|&&examples| examples > 0).count()).sum();
    let mut text = format!(
        "{} clients with {} to {} examples, median {}; {:.1} classes each",
        count(counts.len() as u64),
        count(*least as u64),
        count(*most as u64),
        count(*median as u64),
        kinds as f64 / counts.len() as f64
    );
    if every > 1 {
        let _ = write!(text, "; every {}th is shown", count(every as u64));
    }
    text
}

/// A bar for each client, as high as it has examples.
fn sizes(shown: &[&Vec<usize>]) -> String {
    let total = |classes: &Vec<usize>| classes.iter().sum::<usize>();
    let most = shown.iter().map(|classes| total(classes)).max().unwrap_or(0).max(1);
    let mut path = String::new();
    for (client, classes) in shown.iter().enumerate() {
        let height = 100.0 * total(classes) as f64 / most as f64;
        let _ = write!(path, "M{client}.1 {:.1}h.8V100h-.8z", 100.0 - height);
    }
    picture("0 0", shown.len(), 100, &format!("<path d=\"{path}\"/>"), "examples of each client")
}

/// A rectangle for each client and class, the darker the larger its part of the client's examples.
fn cells(shown: &[&Vec<usize>], classes: usize) -> String {
    let mut levels = vec![String::new(); LEVELS];
    for (client, counts) in shown.iter().enumerate() {
        let total = counts.iter().sum::<usize>().max(1);
        for (class, &examples) in counts.iter().enumerate().filter(|(_, examples)| **examples > 0) {
            let level = (examples * LEVELS / total).min(LEVELS - 1);
            let _ = write!(levels[level], "M{client} {class}h1v1h-1z");
        }
    }
    let paths: String = levels
        .iter()
        .enumerate()
        .filter(|(_, path)| !path.is_empty())
        .map(|(level, path)| {
            format!("<path opacity=\"{:.2}\" d=\"{path}\"/>", (level + 1) as f64 / LEVELS as f64)
        })
        .collect();
    picture("0 0", shown.len(), classes, &paths, "part of each class in each client's examples")
}

fn picture(origin: &str, width: usize, height: usize, inside: &str, label: &str) -> String {
    format!(
        "<svg viewBox=\"{origin} {width} {height}\" preserveAspectRatio=\"none\" shape-rendering=\"crispEdges\" role=\"img\" \
         aria-label=\"{label}\">{inside}</svg>"
    )
}

/// Rectangles in a picture, at most.
const CELLS: usize = 6000;
/// Names beside a picture, at most.
const LABELS: usize = 20;
/// Shades.
const LEVELS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_class_stand_together_and_sizes_are_told() {
        let html = clients(&[vec![0, 4], vec![3, 0], vec![1, 3]], &["no".into(), "yes".into()]);
        assert!(html.contains("3 clients with 3 to 4 examples, median 4; 1.3 classes each"), "{html}");
        // First the client of class 0, then the one with class 1 alone, then the mixed one.
        assert!(html.contains("d=\"M0 0h1v1h-1zM1 1h1v1h-1z\""), "{html}");
        assert!(html.contains("d=\"M2 0h1v1h-1z\"") && html.contains("d=\"M2 1h1v1h-1z\""), "{html}");
    }

    #[test]
    fn a_million_clients_fit_on_a_page() {
        let html = clients(&vec![vec![1, 2]; 1_000_000], &["no".into(), "yes".into()]);
        assert!(html.len() < 300_000, "{}", html.len());
        assert!(html.contains("every 334th is shown"), "{}", &html[..500]);
    }
}
