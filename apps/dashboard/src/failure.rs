//! What a user reads when the program gives up.

use core::error::Error;
use core::iter::successors;

/// An error and its causes in one line, each said once: some errors name their cause in their own words,
/// others leave it to the chain.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in successors(Some(error), |error| (*error).source()) {
        let words = cause.to_string();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = words;
        } else if !line.ends_with(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_once() {
        let cause = anyhow::anyhow!("no such\ndirectory");
        let repeated = anyhow::anyhow!("directory: no such directory");
        let error = cause.context(repeated).context("cannot open");
        assert_eq!(
            one_line(error.as_ref()),
            "cannot open: directory: no such directory"
        );
    }
}
