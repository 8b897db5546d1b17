//! What a model confuses with what, and how it does on each class.

use std::fmt::Write;

use skep_learning::{Average, Classification, Confusion};

use crate::page::{count, escaped, percent};

/// The confusion matrix as a table, and the scores of each class as another.
pub(super) fn html(measured: &Classification, classes: &[String]) -> String {
    let confusion = &measured.confusion;
    format!("<div class=\"grid wide\">\n{}{}</div>\n", table(confusion, classes), scores(measured, classes))
}

fn table(confusion: &Confusion, classes: &[String]) -> String {
    let counts = confusion.counts();
    let shown = classes.len().min(CLASSES);
    let mut html = format!(
        "<div class=\"card\"><figcaption><h3>Confusion matrix</h3><output>rows: true class, columns: predicted</output></figcaption>\
         <div class=\"scroll\"><table class=\"confusion\" style=\"--classes:{shown}\"><thead><tr><th></th>"
    );
    for name in &classes[..shown] {
        let _ = write!(html, "<th title=\"{0}\">{0}</th>", escaped(name));
    }
    html += "</tr></thead>\n";
    for (truth, row) in counts.rows().into_iter().enumerate().take(shown) {
        let _ = write!(html, "<tr><th title=\"{0}\">{0}</th>", escaped(&classes[truth]));
        let of_class = row.sum();
        for (predicted, &examples) in row.iter().enumerate().take(shown) {
            let part = if of_class == 0 { 0.0 } else { examples as f64 / of_class as f64 };
            let right = if truth == predicted { " right" } else { "" };
            let strength = match (examples, part > 0.55) {
                (0, _) => " none",
                (_, true) => " strong",
                (_, false) => "",
            };
            // Mistakes are few, so they are painted stronger.
            let paint = if truth == predicted { part } else { part.sqrt().min(1.0) };
            let _ = write!(
                html,
                "<td class=\"{}\" style=\"--part:{:.0}%\">{examples}</td>",
                format!("{right}{strength}").trim(),
                100.0 * paint
            );
        }
        html += "</tr>\n";
    }
    html += "</table></div>";
    if shown < classes.len() {
        let _ = write!(html, "<p class=\"soft\">The first {shown} of {} classes.</p>", classes.len());
    }
    html + "</div>\n"
}

fn scores(measured: &Classification, classes: &[String]) -> String {
    let mut html = "<div class=\"card\"><figcaption><h3>Each class</h3></figcaption><div class=\"scroll\"><table class=\"classes\">\
        <thead><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>ROC AUC</th><th>examples</th><th class=\"bar\"></th></tr></thead>\n"
        .to_owned();
    let share = |part: Option<f64>| part.map_or("–".to_owned(), percent);
    let confusion = &measured.confusion;
    for ((name, scores), area) in classes.iter().zip(confusion.class_scores()).zip(measured.roc_auc()) {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"bar\"><i style=\"--part:{:.0}%\"></i></td></tr>",
            escaped(name),
            share(scores.precision),
            share(scores.recall),
            share(scores.f1),
            share(area),
            count(scores.support),
            100.0 * scores.f1.unwrap_or(0.0)
        );
    }
    for (name, average) in [("mean of classes", Average::Macro), ("mean by examples", Average::Weighted)] {
        let Some(scores) = confusion.average(average) else { continue };
        let area = if average == Average::Macro { measured.mean_roc_auc() } else { None };
        let _ = writeln!(
            html,
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td></td><td class=\"bar\"></td></tr>",
            percent(scores.precision),
            percent(scores.recall),
            percent(scores.f1),
            share(area)
        );
    }
    html + "</table></div></div>\n"
}

/// More than these are not shown in the matrix.
const CLASSES: usize = 30;

#[cfg(test)]
mod tests {
    use skep_learning::Evaluation;

    use super::*;

    #[test]
    fn every_count_stands_at_its_place() {
        let logits = [([1.0, 0.0], 0), ([0.0, 1.0], 0), ([0.0, 1.0], 1), ([0.0, 3.0], 1)];
        let examples: Vec<_> = logits.iter().map(|(logits, label)| (&logits[..], *label)).collect();
        let evaluation = Evaluation::of_logits(2, &examples);
        let html = html(evaluation.classes().unwrap(), &["no".into(), "<b>".into()]);
        assert!(html.contains("<th title=\"no\">no</th><td class=\"right\" style=\"--part:50%\">1</td><td class=\"\" style=\"--part:71%\">1</td>"), "{html}");
        assert!(html.contains("<td class=\"none\" style=\"--part:0%\">0</td><td class=\"right strong\" style=\"--part:100%\">2</td>"), "{html}");
        assert!(
            html.contains(
                "<tr><th>no</th><td>100.0 %</td><td>50.0 %</td><td>66.7 %</td><td>87.5 %</td><td>2</td>"
            ),
            "{html}"
        );
        assert!(!html.contains("<b>"));
    }
}
