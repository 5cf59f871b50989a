//! The path of a request, as names of folders and of a file.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// The names in a path, decoded. None of them is empty or leads upwards, holds a separator or begins with a dot, but
/// `.well-known` (RFC 8615).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Names {
    names: Vec<String>,
    /// The path ends with a slash.
    is_folder: bool,
}

impl Names {
    /// `None` where the path can't be one of a file that is served.
    pub(in crate::http) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix('/')?;
        let (rest, is_folder) = match rest.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (rest, rest.is_empty()),
        };
        let names = match rest {
            "" if path == "/" => Vec::new(),
            rest => rest.split('/').map(name).collect::<Option<_>>()?,
        };
        Some(Self { names, is_folder })
    }

    /// One file in the folder itself.
    pub(in crate::http) fn file(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            is_folder: false,
        }
    }

    /// Whether the path says that it is a folder's.
    pub(in crate::http) fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Its index, where it is a folder.
    pub(in crate::http) fn index(&self) -> Self {
        let mut names = self.names.clone();
        names.push("index.html".to_owned());
        Self {
            names,
            is_folder: false,
        }
    }

    /// The page that goes by this name without its ending; `None` where it has one, or is a folder.
    pub(in crate::http) fn page(&self) -> Option<Self> {
        let (last, folders) = self.names.split_last()?;
        if self.is_folder || last.ends_with(".html") {
            return None;
        }
        let mut names = folders.to_vec();
        names.push(format!("{last}.html"));
        Some(Self {
            names,
            is_folder: false,
        })
    }

    pub(in crate::http) fn last(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    pub(super) fn below(&self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        path.extend(&self.names);
        path
    }
}

fn name(text: &str) -> Option<String> {
    let name = percent_decode_str(text).decode_utf8().ok()?;
    let is_hidden = name.starts_with('.') && name != ".well-known";
    // Backslashes and colons mean something on Windows; in a name that a build has made stands neither.
    let is_allowed = |c: char| !matches!(c, '/' | '\\' | ':') && !c.is_control();
    let is_name = !name.is_empty() && !is_hidden && name.chars().all(is_allowed);
    is_name.then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let root = Path::new("/srv");
        for (path, expected, is_folder) in [
            ("/", "/srv", true),
            ("/main.js", "/srv/main.js", false),
            ("/assets/a%20b.svg", "/srv/assets/a b.svg", false),
            ("/gr%C3%BCn", "/srv/gr\u{fc}n", false),
            ("/a/b/", "/srv/a/b", true),
            ("/a..b", "/srv/a..b", false),
            (
                "/.well-known/security.txt",
                "/srv/.well-known/security.txt",
                false,
            ),
            ("/%252e%252e/x", "/srv/%2e%2e/x", false),
        ] {
            let names = Names::parse(path).unwrap();
            assert_eq!(names.below(root), Path::new(expected), "{path}");
            assert_eq!(names.is_folder(), is_folder, "{path}");
        }
    }

    #[test]
    fn nothing_leads_out_or_to_hidden_files() {
        for path in [
            "",
            "x",
            "//",
            "//etc/passwd",
            "/a//b",
            "/..",
            "/../x",
            "/a/../../x",
            "/./x",
            "/%2e%2e/x",
            "/%2E./x",
            "/a%2f..%2fx",
            "/..%2fx",
            "/a%5c..%5cx",
            "/..\\x",
            "/C:/x",
            "/a%00.html",
            "/%ff",
            "/.env",
            "/.git/config",
            "/a/.htaccess",
            "/%2egit/config",
            "/...",
            "/a%0ab",
        ] {
            assert_eq!(Names::parse(path), None, "{path}");
        }
    }

    #[test]
    fn what_stands_for_a_path() {
        let of = |path: &str| Names::parse(path).unwrap();
        let root = Path::new("/");
        assert_eq!(of("/").index().below(root), Path::new("/index.html"));
        assert_eq!(of("/a/").index().below(root), Path::new("/a/index.html"));
        let page = |path: &str| of(path).page().map(|names| names.below(root));
        assert_eq!(page("/a/b"), Some("/a/b.html".into()));
        assert_eq!(
            (page("/"), page("/a/"), page("/a.html")),
            (None, None, None)
        );
    }
}
