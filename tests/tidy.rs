//! House rules as tests, each with its reason. They read the sources; they run anywhere.

use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "graph", "ops", "runtime", "distributed", "python", "fuzz", "examples", "tests"]
            .iter()
            .map(|f| root.join(f))
            .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                // What cargo-fuzz builds lies among the sources.
                folders.extend((!path.ends_with("target")).then_some(path));
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(root).expect("inside").to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}

/// A reader meets a file at its top: it says what it is and why it is not what one would guess.
#[test]
fn every_file_opens_by_saying_what_it_is() {
    let silent: Vec<_> = sources().into_iter().filter(|(_, t)| !t.starts_with("//!")).map(|(p, _)| p).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

/// What does not fit in a head does not fit in a file.
#[test]
fn no_file_is_longer_than_600_lines() {
    let long: Vec<_> = sources().into_iter().map(|(p, t)| (p, t.lines().count())).filter(|(_, n)| *n > 600).collect();
    assert!(long.is_empty(), "{long:?}");
}

/// An op is one file that can be read in one sitting.
#[test]
fn the_median_op_file_is_under_90_lines() {
    let is_op = |p: &Path| {
        let folder = p.parent().and_then(|f| f.file_name()).and_then(|f| f.to_str()).unwrap_or("");
        p.starts_with("ops/src") && folder != "src" && p.file_name().is_some_and(|f| f != "mod.rs")
    };
    let mut lines: Vec<_> = sources()
        .into_iter()
        .filter(|(p, t)| is_op(p) && t.contains("Schema") || is_op(p) && t.contains("ary! {"))
        .map(|(_, t)| t.lines().count())
        .collect();
    lines.sort_unstable();
    println!("{} op files, median {} lines, longest {}", lines.len(), lines[lines.len() / 2], lines[lines.len() - 1]);
    assert!(lines.len() > 50 && lines[lines.len() / 2] < 90);
}

/// Who may know whom is the architecture. The graph knows nobody; the runtime knows no op; devices know kernels only.
#[test]
fn crates_know_only_whom_they_may() {
    let rules = [
        (
            "graph/src",
            &["thalweg_ops", "thalweg_runtime", "thalweg_cpu", "wgpu", "std::fs", "std::net", "std::thread::spawn"][..],
        ),
        ("ops/src", &["thalweg_runtime", "thalweg_cpu", "wgpu", "std::fs", "std::net", "std::thread"]),
        ("runtime/src", &["thalweg_ops", "thalweg_cpu", "wgpu", "std::net"]),
        ("runtime/cpu/src", &["thalweg_ops", "wgpu", "std::fs", "std::net"]),
        ("runtime/gpu/src", &["thalweg_ops", "thalweg_cpu", "std::fs", "std::net"]),
        ("runtime/data/src", &["thalweg_ops", "thalweg_cpu", "std::net"]),
        ("distributed/src", &["thalweg_ops", "thalweg_cpu", "thalweg_gpu", "thalweg_data", "wgpu"]),
    ];
    for (path, text) in sources() {
        for (folder, forbidden) in rules.iter().filter(|(f, _)| path.starts_with(f)) {
            let code = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            for name in *forbidden {
                assert!(!code.contains(name), "{} ({folder}) names {name}", path.display());
            }
        }
    }
}

/// Unsafe code lives where kernels touch memory, and where Python and Rust see the same; nowhere else.
#[test]
fn unsafe_code_lives_in_device_crates_alone() {
    for (path, text) in sources() {
        if !["runtime/cpu", "runtime/gpu", "python/src/memory.rs", "python/src/interrupt.rs", "tests"]
            .iter()
            .any(|f| path.starts_with(f))
        {
            assert!(!text.contains("unsafe {") && !text.contains("unsafe impl"), "{}", path.display());
        }
    }
}

/// String literals of a source that say something: more than a word. Comments and tests are left out.
fn messages(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|l| !l.trim_start().starts_with("//"));
    // A quote that is a character opens no literal.
    let code = lines.collect::<Vec<_>>().join("\n").replace("'\"'", "' '");
    let (mut found, mut open, mut escaped) = (vec![], None::<String>, false);
    for c in code.chars() {
        match (&mut open, c) {
            (None, '"') => open = Some(String::new()),
            (None, _) => {}
            (Some(_), '"') if !escaped => found.extend(open.take()),
            (Some(literal), c) => literal.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    found.retain(|literal| literal.contains(' '));
    found
}

/// What in a message only Rust can read: a path, a macro, a reference, an element type as a constant, a call of a method in a row.
fn of_rust_alone(message: &str) -> Option<&'static str> {
    // These are the same in Python, and NumPy's.
    let shown = ["`.mean()`", "`.sum()`", "`g.parameter(…)`", ".astype("];
    let message = shown.iter().fold(message.to_string(), |m, same| m.replace(same, ""));
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let is_type = |w: &str| ["F16", "BF16", "F32", "F64", "I32", "I64", "U8", "U32"].contains(&w);
    let calls = message.match_indices('.').any(|(at, _)| {
        let rest = message[at + 1..].trim_start_matches(word);
        let name = &message[at + 1..message.len() - rest.len()];
        name.starts_with(|c: char| c.is_ascii_lowercase()) && rest.starts_with('(')
    });
    [
        (message.contains("::"), "a path"),
        (message.contains("!["), "a macro"),
        (message.contains("(&") || message.contains("&["), "a reference"),
        (message.split(|c| !word(c)).any(is_type), "an element type that is not called as in text"),
        (calls, "a call of a method"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then_some(what))
}

/// Users of Python read the same messages: they say what to do in words, or in code that both languages have.
#[test]
fn messages_are_in_no_language_that_a_reader_may_not_know() {
    assert_eq!(
        of_rust_alone("convert first, as in `.cast(F32)`"),
        Some("an element type that is not called as in text")
    );
    assert_eq!(of_rust_alone("say `x.cast(to)` first"), Some("a call of a method"));
    assert_eq!(of_rust_alone("say how: `Strategy::auto`"), Some("a path"));
    assert_eq!(of_rust_alone("take `.mean()` or `.sum()` first, or cast it to f32"), None);
    let read = ["graph/src", "ops/src", "runtime/src", "runtime/data/src", "src"];
    // The command and the benchmark kit are not called from Python; drawings are of another language.
    let not = ["src/cli", "src/kit", "graph/src/draw"];
    let mut seen = 0;
    for (path, text) in sources() {
        if !read.iter().any(|f| path.starts_with(f)) || not.iter().any(|f| path.starts_with(f)) {
            continue;
        }
        for message in messages(&text) {
            seen += 1;
            assert_eq!(of_rust_alone(&message), None, "{}: {message:?}", path.display());
        }
    }
    assert!(seen > 500, "{seen} messages were found");
}
