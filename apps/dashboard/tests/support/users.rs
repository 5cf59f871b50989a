//! Users of tests, as a password file has them.

/// `correct horse`. A hash of another kind would be replaced when its user signs in.
pub(crate) const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$u/2Rkm8/G+qdpomxx7kwZg$pDeGL2Fh8TgXKJSurWpPrlBseNhau+DIcvhmg1c8nng";

/// Another password.
pub(crate) const OTHER_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$Kf6gCC1zOzT42FRzgv2Vig$T7OssjdFBmDqUM8RL0p9C2eP1wc7usmL8lZIdlwUC4Y";

/// `anna:correct horse`, as a header has it.
pub(crate) const ANNA: &str = "Basic YW5uYTpjb3JyZWN0IGhvcnNl";

/// The lines of users who all have the password of [`HASH`].
pub(crate) fn lines(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("{name}:{HASH}\n"))
        .collect()
}
