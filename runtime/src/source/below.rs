//! Where a data set lies: a file or folder that is below a root also when all links are followed. A driver that could name
//! any path could read any file of its workers.

use std::path::{Path, PathBuf};

use super::SourceSpec;
use crate::checkpoint::Root;

/// What a name has to be.
const PLAIN: &str = "is no name below a root: say it without `..` and without a `/` in front";

/// A file or folder below a root.
#[derive(Clone, Debug)]
pub struct Below {
    root: PathBuf,
    path: PathBuf,
}

impl Below {
    /// Where it is, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The file or folder of this name in this one. A name of somebody else's tells nothing of what lies elsewhere, not even
    /// whether anything does.
    ///
    /// # Errors
    /// If it is no plain name, there is no such thing, or links lead out of the root.
    pub fn join(&self, name: &str) -> Result<PathBuf, String> {
        let here = Root { name: String::new(), path: self.path.clone() };
        self.within(&here.directory(name).ok_or_else(|| format!("`{name}` {PLAIN}"))?)
    }
    /// A path that was found in this one, if what is behind it is below the root as well.
    ///
    /// # Errors
    /// If there is no such thing, or links lead out of the root.
    pub fn within(&self, path: &Path) -> Result<PathBuf, String> {
        let name = path.display();
        let found = std::fs::canonicalize(path).map_err(|e| format!("{name}: {e}"))?;
        let inside = found.starts_with(&self.root);
        let root = self.root.display();
        inside.then_some(found).ok_or_else(|| format!("{name} is a link that leads out of the root, {root}"))
    }
}

/// What a spec names.
pub(super) fn resolve(spec: &SourceSpec, roots: &[Root]) -> Result<Below, String> {
    let known = || match roots {
        [] => "it has none".into(),
        _ => format!("it has {}", roots.iter().map(|r| format!("`{}`", r.name)).collect::<Vec<_>>().join(", ")),
    };
    let root = roots.iter().find(|r| r.name == spec.root).ok_or_else(|| {
        let name = &spec.root;
        format!("there is no root `{name}` here; {}: start this process with --root {name}=DIRECTORY", known())
    })?;
    let plain = root.directory(&spec.path).ok_or_else(|| format!("this {PLAIN}"))?;
    // A root was made whole when it was named, and may have been moved since.
    let top = std::fs::canonicalize(&root.path).map_err(|e| format!("{}: {e}", root.path.display()))?;
    let below = Below { root: top.clone(), path: top };
    let path = below.within(&plain)?;
    Ok(Below { path, ..below })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_a_root_is_reached() {
        let folder = std::env::temp_dir().join(format!("thalweg-below-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("root/sub")).expect("room");
        std::fs::write(folder.join("secret"), "s").expect("room");
        std::fs::write(folder.join("root/sub/file"), "f").expect("room");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, folder.join("root").join(name)).expect("room");
        };
        link("../secret", "out");
        link("..", "up");
        link("sub/file", "in");
        let roots = [Root::parse(&format!("data={}", folder.join("root").display())).expect("it is there")];
        let of = |root: &str, path: &str| {
            resolve(&SourceSpec { root: root.into(), path: path.into(), how: String::new() }, &roots)
        };
        for sound in ["sub/file", "in", "sub", ""] {
            assert!(of("data", sound).is_ok(), "{sound}: {:?}", of("data", sound));
        }
        let absolute = folder.join("root/sub/file").display().to_string();
        for (root, path, says) in [
            ("data", "../secret", "no name below a root"),
            ("data", "./sub/file", "no name below a root"),
            ("data", "sub/../../secret", "no name below a root"),
            ("data", &absolute, "no name below a root"),
            ("data", "out", "leads out of the root"),
            ("data", "up/secret", "leads out of the root"),
            ("data", "sub/none", "No such file"),
            ("other", "sub/file", "there is no root `other` here; it has `data`"),
        ] {
            let why = of(root, path).expect_err("it is not below the root");
            assert!(why.contains(says), "{root} {path}: {why}");
        }
        let whole = of("data", "sub").expect("a folder");
        assert!(whole.join("file").is_ok());
        for (name, says) in
            [("../sub/file", "no name below"), ("/etc/passwd", "no name below"), ("none", "No such file")]
        {
            let why = whole.join(name).expect_err("it is not below the root");
            assert!(why.contains(says), "{name}: {why}");
        }
        assert!(whole.within(&folder.join("root/out")).is_err() && whole.within(&folder.join("root/in")).is_ok());
        std::fs::remove_dir_all(&folder).expect("it was there");
    }
}
