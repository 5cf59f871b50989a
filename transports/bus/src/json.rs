//! The little JSON that the hub writes itself.

/// A string literal of the first characters of a text.
pub(crate) fn json_text(text: &str, most_chars: usize) -> String {
    let mut json = String::from("\"");
    for character in text.chars().take(most_chars) {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\x1F' => json += &format!("\\u{:04x}", u32::from(character)),
            _ => json.push(character),
        }
    }
    json + "\""
}
