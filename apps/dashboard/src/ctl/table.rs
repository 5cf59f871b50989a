//! Lists as tables, for people.

use core::fmt::Write as _;
use core::time::Duration;
use std::time::UNIX_EPOCH;

use serde_json::Value;

/// The columns of a list, and the members that they show.
fn columns(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "clients" => &[
            ("ID", "id"),
            ("USER", "user"),
            ("CLIENT", "client_id"),
            ("ADDRESS", "address"),
            ("TRANSPORT", "transport"),
            ("SINCE", "since"),
            ("KEEP-ALIVE", "keep_alive_secs"),
            ("SUBSCRIPTIONS", "subscriptions"),
            ("PENDING", "pending"),
            ("IN FLIGHT", "in_flight"),
            ("LOST", "lost"),
        ],
        "sessions" => &[
            ("CLIENT", "client_id"),
            ("ID", "id"),
            ("USER", "user"),
            ("EXPIRES IN (S)", "expires_in_secs"),
            ("SUBSCRIPTIONS", "subscriptions"),
            ("PENDING", "pending"),
            ("IN FLIGHT", "in_flight"),
        ],
        _ => &[
            ("FILTER", "filter"),
            ("GROUP", "group"),
            ("MODE", "mode"),
            ("PENDING", "pending"),
            ("LOST", "lost"),
        ],
    }
}

/// A line of names, and one for each entry. What peers have chosen is shown without control characters.
pub(super) fn table(name: &str, entries: &[Value]) -> String {
    let columns = columns(name);
    let head = columns.iter().map(|(title, _)| (*title).to_owned());
    let mut lines = vec![head.collect::<Vec<_>>()];
    lines.extend(entries.iter().map(|entry| {
        let cells = columns.iter().map(|(_, member)| cell(member, entry));
        cells.collect()
    }));
    let widths: Vec<_> = (0..columns.len())
        .map(|place| {
            let cells = lines.iter().filter_map(|line| line.get(place));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // To a string it never fails.
            let _written = write!(row, "{cell:width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn cell(member: &str, entry: &Value) -> String {
    match entry.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Number(at)) if member == "since" => {
            let at = Duration::from_millis(at.as_u64().unwrap_or_default());
            match UNIX_EPOCH.checked_add(at) {
                Some(at) => httpdate::fmt_http_date(at),
                None => "-".to_owned(),
            }
        }
        Some(Value::String(text)) => text.escape_debug().to_string(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_shows_no_control_characters() {
        let entries = [
            json!({"filter": "a/#", "mode": "every", "pending": 12, "lost": 0}),
            json!({"filter": "\u{1b}[2J", "group": "g", "mode": "latest", "pending": 0, "lost": 3}),
        ];
        let text = table("subscriptions", &entries);
        let expected = "\
FILTER     GROUP  MODE    PENDING  LOST
a/#        -      every   12       0
\\u{1b}[2J  g      latest  0        3
";
        assert_eq!(text, expected);
        assert_eq!(table("clients", &[]).lines().count(), 1);
    }
}
