//! The text of a password file: one `name:hash` a line, comments and empty lines between.

use core::fmt;
use std::collections::HashMap;

use super::hash::{HashError, PasswordHash};

/// The longest name of a user, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The most users of one file.
pub const MAX_USERS: usize = 1_000_000;

/// A password file in memory. Comments, empty lines and the order stay as they are.
///
/// ```
/// use latchbus_access::users::PasswordFile;
///
/// let file: PasswordFile = "# the lab\nanna:$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW\n".parse()?;
/// assert_eq!(file.names().collect::<Vec<_>>(), ["anna"]);
/// assert!(file.hash("anna").is_some_and(|hash| hash.verify(b"correct horse")));
/// # Ok::<(), latchbus_access::users::FileError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordFile {
    lines: Vec<Line>,
    /// The lines that hold users.
    users: HashMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment, or nothing.
    Other(String),
    User(String, PasswordHash),
}

/// A line that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FileError {
    /// Which, from 1.
    pub line: usize,
    /// Why not.
    #[source]
    pub reason: LineError,
}

/// What is wrong with a line. It never shows the line, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is no text.
    #[error("not UTF-8")]
    Encoding,
    /// It has no colon.
    #[error("not of the form name:hash")]
    Form,
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The hash cannot be used.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The name was there before.
    #[error("the user is in line {0} already")]
    Twice(usize),
    /// Users beyond [`MAX_USERS`].
    #[error("more than {MAX_USERS} users")]
    TooMany,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It is longer than [`MAX_NAME_BYTES`].
    #[error("the name is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// It holds a colon or a control character, begins with `#`, or begins or ends with white space.
    #[error(
        "a name has no colon, no control characters, no # at its beginning and no white space at its ends"
    )]
    Characters,
}

/// Whether this can be the name of a user in a password file.
///
/// # Errors
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    let is_wrong = |c: char| c == ':' || c.is_control() || is_invisible(c);
    if name.contains(is_wrong) || name.starts_with('#') || name.trim() != name {
        return Err(NameError::Characters);
    }
    Ok(())
}

/// Line ends beyond the control characters, the byte order mark, and what turns the direction of text: with them a name
/// in a list or a log can look like another.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl PasswordFile {
    /// Reads a file.
    ///
    /// # Errors
    /// With the first line that cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        // Some editors begin a file with a mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut file = Self::default();
        if bytes.is_empty() {
            return Ok(file);
        }
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let read = file.read_line(line);
            read.map_err(|reason| FileError {
                line: index + 1,
                reason,
            })?;
        }
        Ok(file)
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), LineError> {
        let mut line = line;
        // All of them, so that what is written is read as it is.
        while let Some(rest) = line.strip_suffix(b"\r") {
            line = rest;
        }
        let line = core::str::from_utf8(line).map_err(|_| LineError::Encoding)?;
        if line.trim().is_empty() || line.starts_with('#') {
            self.lines.push(Line::Other(line.to_owned()));
            return Ok(());
        }
        let (name, hash) = line.split_once(':').ok_or(LineError::Form)?;
        check_name(name)?;
        if let Some(before) = self.users.get(name) {
            return Err(LineError::Twice(before + 1));
        }
        if self.users.len() >= MAX_USERS {
            return Err(LineError::TooMany);
        }
        let hash = PasswordHash::parse(hash.trim_end())?;
        self.users.insert(name.to_owned(), self.lines.len());
        self.lines.push(Line::User(name.to_owned(), hash));
        Ok(())
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// The users, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PasswordHash)> {
        self.lines.iter().filter_map(|line| match line {
            Line::User(name, hash) => Some((name.as_str(), hash)),
            Line::Other(_) => None,
        })
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The hash of a user.
    pub fn hash(&self, name: &str) -> Option<&PasswordHash> {
        match self.lines.get(*self.users.get(name)?)? {
            Line::User(_, hash) => Some(hash),
            Line::Other(_) => None,
        }
    }

    /// Adds a user at the end, or replaces the hash of one that is there: the hash before.
    ///
    /// # Errors
    /// When this cannot be a name.
    pub fn set(
        &mut self,
        name: &str,
        hash: PasswordHash,
    ) -> Result<Option<PasswordHash>, NameError> {
        check_name(name)?;
        let at = self.users.get(name).copied();
        if let Some(Line::User(_, old)) = at.and_then(|at| self.lines.get_mut(at)) {
            return Ok(Some(core::mem::replace(old, hash)));
        }
        self.users.insert(name.to_owned(), self.lines.len());
        self.lines.push(Line::User(name.to_owned(), hash));
        Ok(None)
    }

    /// Removes a user: whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(at) = self.users.remove(name) else {
            return false;
        };
        self.lines.remove(at);
        for index in self.users.values_mut().filter(|index| **index > at) {
            *index -= 1;
        }
        true
    }
}

impl core::str::FromStr for PasswordFile {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, FileError> {
        Self::from_bytes(text.as_bytes())
    }
}

/// The text of the file.
impl fmt::Display for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::User(name, hash) => writeln!(f, "{name}:{hash}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW";

    fn hash() -> PasswordHash {
        PasswordHash::parse(HASH).unwrap()
    }

    #[test]
    fn comments_and_order_stay() {
        let text = format!("# users\n\nzoe:{HASH}\n  \n# the lab\nanna b:{HASH}\n");
        let mut file: PasswordFile = text.parse().unwrap();
        assert_eq!(file.to_string(), text);
        assert_eq!(file.names().collect::<Vec<_>>(), ["zoe", "anna b"]);
        assert_eq!(file.set("zoe", hash()), Ok(Some(hash())));
        assert_eq!(file.set("ben", hash()), Ok(None));
        assert!(file.remove("zoe") && !file.remove("zoe"));
        assert_eq!((file.len(), file.hash("zoe")), (2, None));
        assert!(file.hash("ben").is_some() && file.hash("anna b").is_some());
        assert_eq!(
            file.to_string(),
            format!("# users\n\n  \n# the lab\nanna b:{HASH}\nben:{HASH}\n")
        );
    }

    #[test]
    fn files_of_other_systems_are_read() {
        for text in [
            format!("\u{feff}anna:{HASH}\r\n"),
            format!("anna:{HASH}"),
            format!("anna:{HASH} \r\n\r\n"),
        ] {
            let file: PasswordFile = text.parse().unwrap();
            assert_eq!(file.hash("anna"), Some(&hash()), "{text:?}");
        }
        assert!(PasswordFile::from_bytes(b"").unwrap().is_empty());
        let text = format!("# the lab\r\r\n\r\r\nanna:{HASH}\r\r\n");
        let file: PasswordFile = text.parse().unwrap();
        assert_eq!(file.to_string().parse(), Ok(file));
    }

    #[test]
    fn the_line_is_named_and_not_shown() {
        use LineError::*;

        for (text, line, reason) in [
            (format!("# a\nanna:{HASH}\nben"), 3, Form),
            (format!(":{HASH}"), 1, Name(NameError::Empty)),
            (format!(" anna:{HASH}"), 1, Name(NameError::Characters)),
            (format!("an\u{7}na:{HASH}"), 1, Name(NameError::Characters)),
            (format!("an\rna:{HASH}"), 1, Name(NameError::Characters)),
            ("\nanna:secret".to_owned(), 2, Hash(HashError::Unknown)),
            (format!("anna:{HASH}\nanna:{HASH}"), 2, Twice(1)),
            (
                format!("{}:{HASH}", "a".repeat(257)),
                1,
                Name(NameError::TooLong),
            ),
        ] {
            let error = text.parse::<PasswordFile>().unwrap_err();
            assert_eq!(error, FileError { line, reason });
            assert!(!error.to_string().contains("secret"));
        }
        let error = PasswordFile::from_bytes(b"a\xff:x").unwrap_err();
        assert_eq!(error.reason, Encoding);
    }

    #[test]
    fn names_that_a_line_cannot_hold_are_refused() {
        let mut file = PasswordFile::default();
        for name in ["", "a:b", "a\nb", "#a", " a", "a ", "a\u{85}", "a\u{202e}b"] {
            assert!(file.set(name, hash()).is_err(), "{name:?}");
        }
        assert!(file.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(String),
        Remove(String),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = || "[a-d]|.{1,6}";
        let step = prop_oneof![name().prop_map(Step::Set), name().prop_map(Step::Remove)];
        prop::collection::vec(step, 0..24)
    }

    proptest! {
        /// A file is what a map says after the same steps, and is read as it was written.
        #[test]
        fn a_file_is_a_map(start in "((#.{0,8}|[a-d])?\n){0,5}", steps in steps()) {
            let mut model: Vec<String> = Vec::new();
            let mut text = String::new();
            for line in start.lines() {
                if line.starts_with('#') || line.is_empty() {
                    text += &format!("{line}\n");
                } else if !model.iter().any(|name| name == line) {
                    model.push(line.to_owned());
                    text += &format!("{line}:{HASH}\n");
                }
            }
            let mut file: PasswordFile = text.parse().unwrap();
            for step in steps {
                match step {
                    Step::Set(name) => {
                        let set = file.set(&name, hash());
                        prop_assert_eq!(set.is_ok(), check_name(&name).is_ok());
                        if set == Ok(None) {
                            model.push(name);
                        }
                    }
                    Step::Remove(name) => {
                        let before = model.len();
                        model.retain(|one| *one != name);
                        prop_assert_eq!(file.remove(&name), model.len() < before);
                    }
                }
                let names: Vec<_> = file.names().collect();
                prop_assert_eq!(&names, &model);
                let again: PasswordFile = file.to_string().parse().unwrap();
                prop_assert_eq!(&again, &file);
            }
        }

        /// No bytes cause a panic, and what is read is written so that it is read again.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), Just(b'$'), any::<u8>()], 0..64)) {
            if let Ok(file) = PasswordFile::from_bytes(&bytes) {
                prop_assert_eq!(PasswordFile::from_bytes(file.to_string().as_bytes()), Ok(file));
            }
        }
    }
}
