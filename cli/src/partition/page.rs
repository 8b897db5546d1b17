//! The page of a partition: pictures of who has what.

use skep_protocol::experiment::Experiment;

use super::{NOT_PRIVATE, told, without_classes};
use crate::page::{clients, count, escaped, histogram, number, page};

/// The whole file.
pub(super) fn html(experiment: &Experiment, holdings: &super::Holdings, classes: &[String]) -> String {
    let name = escaped(&experiment.name);
    let examples = holdings.sizes.iter().sum::<usize>() as u64;
    let mut cards = vec![
        (
            "Clients",
            count(holdings.clients),
            format!("{} had been left with nothing", count(holdings.left_empty as u64)),
        ),
        (
            "Examples",
            count(examples),
            format!(
                "{} more for validation, {} more held out",
                count(holdings.validation as u64),
                count(holdings.held_out as u64)
            ),
        ),
        (
            "Examples of a client",
            number(holdings.size.median),
            format!("median; {} to {}", number(holdings.size.least), number(holdings.size.most)),
        ),
    ];
    let sizes: Vec<f64> = holdings.sizes.iter().map(|&size| size as f64).collect();
    let mut pictures = histogram("Examples of a client", "examples", &sizes, true);
    let map = match (&holdings.labels, &holdings.label_counts) {
        (Some(labels), Some(counts)) => {
            cards.push((
                "Classes of a client",
                number(labels.classes.median),
                format!("median; {} to {}", number(labels.classes.least), number(labels.classes.most)),
            ));
            cards.push((
                "Distance of labels",
                format!("{:.3}", labels.distance.mean),
                format!(
                    "total variation from all, 0 to 1, in the mean of clients; {:.3} if as many were dealt to each at random",
                    labels.distance_if_dealt
                ),
            ));
            pictures += &histogram(
                "Distance of a client's labels from those of all",
                "total variation",
                &labels.distances,
                false,
            );
            clients(counts, classes)
        }
        _ => format!("<p class=\"soft\">Classes: {}.</p>\n", without_classes(experiment)),
    };
    let cards: String = cards
        .into_iter()
        .map(|(name, value, note)| {
            format!("<div class=\"card\"><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>\n")
        })
        .collect();
    let body = format!(
        "<header><div><h1>{name}: who has what</h1><p class=\"soft\">{}</p></div></header>\n\
         <p class=\"warning\"><b>Not private.</b> This is {NOT_PRIVATE}.</p>\n\
         <dl class=\"grid numbers\">\n{cards}</dl>\n<h2>Labels</h2>\n{map}<h2>How many have how much</h2>\n\
         <div class=\"grid wide\">\n{pictures}</div>\n",
        told(experiment, holdings)
    );
    page(&format!("{name}: who has what"), ".bars path { fill: currentColor }\n", &body)
}
