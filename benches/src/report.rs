//! The table and the picture.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use crate::peers::Kind;

/// One row of the table: a figure of a scenario, for all who have it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The scenario and what was measured.
    pub(crate) title: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The name of the figure.
    pub(crate) figure: &'static str,
    /// What must be reached, in words.
    pub(crate) aim: &'static str,
    /// The figures of all rounds.
    pub(crate) values: BTreeMap<&'static str, Vec<f64>>,
}

impl Row {
    /// The middle one of the rounds.
    pub(crate) fn median(&self, kind: Kind) -> Option<f64> {
        let mut values = self.values.get(kind.name())?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn best(&self, ours: bool) -> Option<f64> {
        let values = Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_ours() == ours && *kind != Kind::LatchbusDurable);
        values
            .filter_map(|kind| self.median(kind))
            .min_by(f64::total_cmp)
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        value if value.is_infinite() => "never".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The table in Markdown. Smaller is better in each row; the ratio is that of our better figure to the best
/// of the others.
pub(crate) fn markdown(rows: &[Row], remarks: &[String]) -> String {
    let mut out = String::from("| | unit |");
    for kind in Kind::ALL {
        let _ = write!(out, " {} |", kind.name());
    }
    out += " ours to the best | aim |\n|---|---|";
    out += &"---:|".repeat(Kind::ALL.len() + 1);
    out += "---|\n";
    for row in rows {
        let _ = write!(out, "| {} | {} |", row.title, row.unit);
        for kind in Kind::ALL {
            let text = row.median(kind).map_or_else(|| "–".to_owned(), figure);
            let _ = write!(out, " {text} |");
        }
        let ratio = row
            .best(true)
            .zip(row.best(false))
            .map(|(ours, theirs)| ours / theirs);
        let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(out, " {ratio} | {} |", row.aim);
    }
    for remark in remarks {
        let _ = write!(out, "\n{remark}\n");
    }
    out
}

const BAR: (usize, usize) = (16, 320);
const NAMES: usize = 190;

/// Bars for each row: ours in colour, all in proportion to the longest, which is cut at eight times our best.
pub(crate) fn svg(rows: &[Row], title: &str) -> String {
    let mut body = String::new();
    let mut y = 34;
    for row in rows {
        let shown: Vec<_> = (Kind::ALL.into_iter())
            .filter_map(|kind| Some((kind, row.median(kind)?)))
            .collect();
        let longest = shown
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| value.is_finite());
        let longest = longest
            .fold(f64::MIN_POSITIVE, f64::max)
            .min(row.best(true).unwrap_or(1.0) * 8.0);
        let _ = writeln!(
            body,
            r#"<text x="8" y="{y}" class="t">{} ({})</text>"#,
            row.title, row.unit
        );
        y += 8;
        for (kind, value) in shown {
            let width = (value.min(longest) / longest * BAR.1 as f64) as usize;
            let class = if kind.is_ours() { "o" } else { "p" };
            let cut = if value > longest { "…" } else { "" };
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{}" class="n">{}</text><rect x="{NAMES}" y="{y}" width="{}" height="12" class="{class}"/><text x="{}" y="{}">{cut}{}</text>"#,
                NAMES - 6,
                y + 10,
                kind.name(),
                width.max(1),
                NAMES + width + 6,
                y + 10,
                figure(value),
            );
            y += BAR.0;
        }
        y += 22;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{y}" viewBox="0 0 600 {y}" font-family="sans-serif" font-size="11"><title>{title}</title><style>.t{{font-weight:bold;font-size:12px}}.n{{text-anchor:end}}.o{{fill:#d6336c}}.p{{fill:#868e96}}text{{fill:#495057}}</style><rect width="600" height="{y}" fill="#fff"/>
{body}</svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let values = [
            ("Latchbus MQTT", vec![3.0, 1.0, 2.0]),
            ("NATS", vec![4.0]),
            ("rumqttd", vec![f64::INFINITY]),
        ];
        Row {
            title: "S1".to_owned(),
            unit: "s",
            figure: "cpu",
            aim: "≤ 3",
            values: values.into_iter().collect(),
        }
    }

    #[test]
    fn the_ratio_is_of_medians_to_the_best_of_the_others() {
        let table = markdown(&[row()], &[]);
        let line = table.lines().last().unwrap();
        assert_eq!(
            line,
            "| S1 | s | – | 2.00 | – | – | 4.00 | never | – | – | – | 0.50 | ≤ 3 |"
        );
        assert_eq!(
            table.lines().next().unwrap().matches('|').count(),
            line.matches('|').count()
        );
    }

    #[test]
    fn the_picture_has_a_bar_for_each_figure() {
        assert_eq!(svg(&[row()], "title").matches("height=\"12\"").count(), 3);
    }
}
