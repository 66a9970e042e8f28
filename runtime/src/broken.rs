//! A build that is broken on purpose: tests of faults have to fail on it, or they show nothing. `.ci/broken.sh` sees to that.
//! Behind the feature `broken`, unlike [`crash`](crate::crash): nothing that people run can be told to leave out an fsync.
//! Without the feature [`is`] is a constant, and what asks it is as if it did not.
//!
//! With it, `THALWEG_BROKEN` says what the build leaves out.

use std::fs::File;

/// What is in a file, or a directory's names, are on the disk once this returns. The one place that asks for it.
///
/// # Errors
/// If the system cannot.
pub fn sync(file: &File) -> std::io::Result<()> {
    if is(What::Fsync) { Ok(()) } else { file.sync_all() }
}

/// Says what is left out: `fsync`, `timeout` or `checksum`.
pub const BROKEN_VARIABLE: &str = "THALWEG_BROKEN";

/// What may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Bytes and names are left to the system, to write when it likes.
    Fsync,
    /// However long a peer is silent, it is waited for.
    Timeout,
    /// Bytes are taken as they come, from peers and from disks.
    Checksum,
}

/// Whether this build leaves it out: never.
#[cfg(not(feature = "broken"))]
#[inline]
pub const fn is(_: What) -> bool {
    false
}

/// Whether this process leaves it out. Ends the process where the variable says something else: a name that is not known must
/// not pass for a build that is whole.
#[cfg(feature = "broken")]
pub fn is(what: What) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<What>> = std::sync::LazyLock::new(|| {
        let said = std::env::var_os(BROKEN_VARIABLE).unwrap_or_default();
        parse(&said.to_string_lossy()).unwrap_or_else(|why| {
            eprintln!("{why}");
            std::process::exit(2)
        })
    });
    *CHOSEN == Some(what)
}

#[cfg(feature = "broken")]
fn parse(said: &str) -> Result<Option<What>, String> {
    match said {
        "" => Ok(None),
        "fsync" => Ok(Some(What::Fsync)),
        "timeout" => Ok(Some(What::Timeout)),
        "checksum" => Ok(Some(What::Checksum)),
        _ => Err(format!("{BROKEN_VARIABLE} is `{said}`, and should be fsync, timeout or checksum")),
    }
}

#[cfg(test)]
mod tests {
    /// The tests of the workspace test what people run.
    #[cfg(not(feature = "broken"))]
    #[test]
    fn nothing_is_left_out() {
        use super::*;
        const { assert!(!is(What::Fsync) && !is(What::Timeout) && !is(What::Checksum)) }
    }

    #[cfg(feature = "broken")]
    #[test]
    fn a_name_that_is_not_known_is_an_error() {
        use super::*;
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("fsync"), Ok(Some(What::Fsync)));
        assert!(parse("fsinc").unwrap_err().contains("should be fsync, timeout or checksum"));
    }
}
