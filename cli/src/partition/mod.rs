//! `skep data partition`: who has which examples in a simulated federation, before it runs.

mod page;

use std::fmt::Write;
use std::fs;

use serde_json::json;
use skep_protocol::experiment::evaluation::Predicted;
use skep_protocol::experiment::{Experiment, Partition};
use skep_simulations::{Holdings, population};

use crate::arguments::{Output, PartitionArguments};
use crate::experiment_file;
use crate::failure::Failure;
use crate::page::spread;

/// Runs `skep data partition`.
///
/// # Errors
/// [`Failure::Usage`] when the experiment or its data make no sense, [`Failure::Other`] when the page cannot be written.
pub(crate) fn run(arguments: &PartitionArguments) -> Result<(), Failure> {
    let experiment = experiment_file::read(arguments.file.as_deref(), arguments.data_dir.as_deref())?;
    let data = population::data(&experiment).map_err(Failure::configuration)?;
    let holdings = Holdings::of(&experiment, &data).map_err(Failure::configuration)?;
    let classes = population::class_names(&experiment);
    if let Some(html) = &arguments.html {
        let page = page::html(&experiment, &holdings, &classes);
        fs::write(html, page).map_err(|error| Failure::file(html, error))?;
    }
    match arguments.output {
        Output::Text => print!("{}", text(&experiment, &holdings, &classes)),
        Output::Json => println!("{}", json(&experiment, &holdings, &classes)),
    }
    Ok(())
}

fn text(experiment: &Experiment, holdings: &Holdings, classes: &[String]) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12}{value}");
    };
    line("partition", told(experiment, holdings));
    line(
        "examples",
        format!("{} to train on, {}", holdings.sizes.iter().sum::<usize>(), spread(&holdings.size, 1)),
    );
    if holdings.left_empty > 0 {
        line(
            "repaired",
            format!(
                "{} clients had been left with nothing, and were given one example each",
                holdings.left_empty
            ),
        );
    }
    if holdings.validation > 0 {
        line("validation", format!("{} more examples, which the server decides by", holdings.validation));
    }
    if holdings.held_out > 0 {
        line("held out", format!("{} more examples, which their clients are measured on", holdings.held_out));
    }
    match &holdings.labels {
        None => line("classes", without_classes(experiment).to_owned()),
        Some(labels) => {
            let each =
                labels.examples.iter().zip(classes).map(|(examples, class)| format!("{class} {examples}"));
            let shown: Vec<String> = each.take(SHOWN).collect();
            let more = match labels.examples.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            line("classes", format!("{}: {}{more}", labels.examples.len(), shown.join(", ")));
            line("of a client", spread(&labels.classes, 1));
            line(
                "distance",
                format!(
                    "{}: total variation between the labels of a client and those of all, 0 to 1",
                    spread(&labels.distance, 3)
                ),
            );
            line(
                "if dealt",
                format!(
                    "{:.3} in the mean, if as many examples were dealt to each at random",
                    labels.distance_if_dealt
                ),
            );
        }
    }
    line("not private", NOT_PRIVATE.to_owned());
    text
}

fn told(experiment: &Experiment, holdings: &Holdings) -> String {
    let how = match experiment.population.partition {
        Partition::Iid => "dealt at random".to_owned(),
        Partition::Dirichlet { alpha } => format!("classes by a Dirichlet distribution, alpha {alpha}"),
        Partition::Shards { per_client } => format!("{per_client} shards of the sorted examples for each"),
        Partition::Column => "by the data's column of clients".to_owned(),
        Partition::Generated => "generated from each client's number".to_owned(),
    };
    let looked_at = match holdings.sizes.len() as u64 == holdings.clients {
        true => String::new(),
        false => format!("; what follows is of the first {}", holdings.sizes.len()),
    };
    format!("{} clients, {how}, seed {}{looked_at}", holdings.clients, experiment.seed)
}

fn json(experiment: &Experiment, holdings: &Holdings, classes: &[String]) -> serde_json::Value {
    let labels = holdings.labels.as_ref().map(|labels| {
        let each = labels.examples.iter().zip(classes);
        json!({
            "classes": each.map(|(examples, class)| json!({ "class": class, "examples": examples })).collect::<Vec<_>>(),
            "classes_of_client": labels.classes,
            "distance": labels.distance,
            "distance_if_dealt": labels.distance_if_dealt,
        })
    });
    json!({
        "experiment": experiment.name,
        "clients": holdings.clients,
        "clients_counted": holdings.sizes.len(),
        "examples": holdings.sizes.iter().sum::<usize>(),
        "examples_of_client": holdings.size,
        "clients_left_empty": holdings.left_empty,
        "validation": holdings.validation,
        "held_out": holdings.held_out,
        "labels": labels,
        "sizes": holdings.sizes,
        "label_counts": holdings.label_counts,
    })
}

fn without_classes(experiment: &Experiment) -> &'static str {
    match experiment.data.predicted() {
        Predicted::Number => "none: what is predicted is a number",
        Predicted::Class | Predicted::Word => "none: any word may come next",
    }
}

const NOT_PRIVATE: &str = "counted without noise, as only a simulation can: no promise is about these numbers, and where data are real they tell about clients";
/// Classes that are listed.
const SHOWN: usize = 20;
