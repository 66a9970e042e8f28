//! What a test takes that a machine may lack. There it is skipped, by name; `THALWEG_REQUIRE=strace,vulkan,…` makes that a failure,
//! so that whoever has all of it (CI) knows that everything ran.

#![allow(dead_code)] // Not every test uses all of it.

/// Says that `test` is skipped for want of `what`.
///
/// # Panics
/// If `what` is required.
#[track_caller]
pub(crate) fn skip(test: &str, what: &str) {
    let required = std::env::var("THALWEG_REQUIRE").is_ok_and(|all| all.split(',').any(|one| one == what));
    assert!(!required, "{test}: THALWEG_REQUIRE says {what}, and there is none");
    println!("skipped: {test}: there is no {what}");
}

/// Whether strace is there and may trace; `test` is skipped where not. Elsewhere than here the system's calls have other names.
#[track_caller]
pub(crate) fn strace(test: &str) -> bool {
    let here = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    let try_it = || std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let works = here && try_it().is_ok_and(|out| out.status.success());
    if !works {
        skip(test, "strace");
    }
    works
}
