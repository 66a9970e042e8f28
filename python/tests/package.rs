//! The Python package as its users have it: pytest, the doctests and the type checkers run over it, in an environment that this makes itself. Cargo has
//! built the module by then, with everything else, so that nothing is built twice; CI also builds a wheel.
//!
//! Skipped, by name, where there is no Python from 3.11 on or its packages cannot be had; `THALWEG_REQUIRE=python` makes that a failure.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

/// Where this test's binary is, and what Cargo has built beside it.
fn built() -> PathBuf {
    env::current_exe().expect("a path").parent().expect("a folder").into()
}

/// What the package asks for, and its tests.
const PACKAGES: &str = "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']
print(*p['dependencies'], *p['optional-dependencies']['test'], sep='\\n')";

/// A Python with the packages, made once.
fn python() -> Result<PathBuf, String> {
    let venv = built().parent().expect("a folder").join("python-venv");
    let (python, ready) = (venv.join("bin/python"), venv.join("ready"));
    let names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
    let is_new = |name: &&&str| {
        let new = Command::new(name).args(["-c", "import sys, venv; sys.exit(sys.version_info < (3, 11))"]).output();
        new.is_ok_and(|out| out.status.success())
    };
    let found = names.iter().find(is_new).ok_or("there is no Python from 3.11 on")?;
    let run = |command: &mut Command| match command.output() {
        Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(out) => Err(format!("{command:?}: {}", text(&out))),
        Err(e) => Err(format!("{command:?}: {e}")),
    };
    let packages = run(Command::new(found).args(["-c", PACKAGES]).current_dir(root()))?;
    if fs::read_to_string(&ready).is_ok_and(|made_with| made_with == packages) {
        return Ok(python);
    }
    run(Command::new(found).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).args(packages.lines()))?;
    fs::write(ready, packages).map_err(|e| e.to_string())?;
    Ok(python)
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// The package with the module that Cargo has built, in a folder that goes on `PYTHONPATH`.
fn package() -> PathBuf {
    let folder = built().parent().expect("a folder").join("python-package");
    let to = folder.join("thalweg");
    fs::create_dir_all(&to).expect("a folder");
    for entry in fs::read_dir(root().join("thalweg")).expect("the package").flatten() {
        let name = entry.file_name();
        if entry.path().extension().is_some_and(|e| e == "py" || e == "pyi" || e == "typed") {
            fs::copy(entry.path(), to.join(name)).expect("room");
        }
    }
    let module = built().join(if cfg!(target_os = "macos") { "lib_thalweg.dylib" } else { "lib_thalweg.so" });
    let place = to.join("_thalweg.abi3.so");
    // It may be mapped by a Python that still runs: another file, not other bytes.
    let _ = fs::remove_file(&place);
    fs::copy(&module, place).unwrap_or_else(|e| panic!("{}: {e}", module.display()));
    folder
}

#[test]
fn the_package_passes_its_own_tests() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            let required = env::var("THALWEG_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == "python"));
            assert!(!required, "THALWEG_REQUIRE says python, and {why}");
            println!("skipped: the Python package: {why}");
            return;
        }
    };
    let (package, bin) = (package(), python.parent().expect("a folder"));
    // The command, for what is launched.
    let command = built().parent().expect("a folder").join("thalweg");
    let run = |arguments: &[&str]| {
        let mut run = Command::new(&python);
        // The sources, which have no module beside them, come after the package; not first, as the folder one is in would.
        let from = env::join_paths([&package, &root()]).expect("plain paths");
        run.args(arguments).current_dir(root()).env("PYTHONPATH", from).env("PYTHONSAFEPATH", "1");
        run.env("PYTHONDONTWRITEBYTECODE", "1");
        // Where type checkers look for what is imported.
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bin.to_path_buf()].into_iter().chain(env::split_paths(&path)));
        run.env("PATH", path.expect("plain paths"));
        if command.exists() {
            run.env("THALWEG", &command);
        }
        let out = run.output().expect("it starts");
        println!("{}", text(&out));
        assert!(out.status.success(), "{arguments:?}: {}", text(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    run(&["-m", "pytest", "-rs", "-p", "no:cacheprovider", "--doctest-modules", "--pyargs", "thalweg", "tests"]);
    run(&["-m", "pyright", "--verifytypes", "thalweg", "--ignoreexternal"]);
    run(&["-m", "pyright"]);
    run(&["-m", "ruff", "check", "--no-cache"]);
    run(&["-m", "ruff", "format", "--check", "--no-cache"]);
    run(&["-m", "mypy.stubtest", "--allowlist", "stubtest-allowlist.txt", "thalweg._thalweg"]);
    for name in ["line", "digits", "several_devices", "your_own_layer", "your_own_op", "characters"] {
        let said = run(&[&format!("examples/{name}.py")]);
        // Losses, accuracies and what was written: to the last digit what the twin in Rust prints, where Cargo has built that.
        let twin = built().parent().expect("a folder").join("examples").join(name);
        if twin.exists() {
            let out = Command::new(twin).current_dir(root()).output().expect("it starts");
            assert!(out.status.success(), "{name}: {}", text(&out));
            assert_eq!(without_folders(&said), without_folders(&String::from_utf8_lossy(&out.stdout)), "{name}");
        }
    }
}

/// Text without the names of folders that are another's each time.
fn without_folders(text: &str) -> String {
    let temporary = env::temp_dir().display().to_string();
    let word = |word: &str| if word.starts_with(&temporary) { "…".into() } else { word.to_string() };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}
