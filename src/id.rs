//! Ids of pods, containers and execs. They become part of paths, names of control groups and log lines.

/// The longest id of containerd's, `pkg/identifiers`.
const MAX: usize = 76;

/// An id that is not plain.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not an id: 1 to {MAX} letters, digits, dots, underscores and dashes, the first one a letter or digit"
)]
pub struct InvalidId(String);

/// Whether an id is plain, as containerd's own are.
///
/// # Errors
/// It is not.
pub fn check(id: &str) -> Result<(), InvalidId> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = id.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if begins && id.len() <= MAX && id.bytes().all(plain) {
        return Ok(());
    }
    Err(InvalidId(id.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn plain_ids() {
        for (id, ok) in [
            ("a", true),
            ("nginx_1.2-x", true),
            (&"x".repeat(76), true),
            (&"x".repeat(77), false),
            ("", false),
            ("..", false),
            ("-a", false),
            ("a/b", false),
            ("a\nb", false),
            ("a\u{1b}", false),
        ] {
            assert_eq!(super::check(id).is_ok(), ok, "{id:?}");
        }
    }
}
