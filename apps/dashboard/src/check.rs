//! `latchbus check-config`: whether a server would start with a file.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use latchbus_access::rules::Rules;

use crate::server;
use crate::settings::{Layer, Settings};

/// Checks a settings file with all files that it names, or a file of rules: what is to be printed. Nothing is changed, no
/// port taken, and no store opened.
///
/// # Errors
/// What the server would end with at its start.
pub fn run(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    if Rules::is_meant_by(&text) {
        return match Rules::parse(&text, &shown.to_string()) {
            Ok(_) => Ok(format!(
                "{shown}: ok: rules, which --access names, or `access` in a settings file\n"
            )),
            Err(error) => anyhow::bail!(
                "{error} (it looks like a file of rules; in a settings file these are below `access`)"
            ),
        };
    }
    let settings = Settings::resolve(Some(file), Layer::default(), Layer::default())?;
    server::check(&settings)?;
    Ok(format!("{shown}: ok\n"))
}
