//! What stands between a file and a model: every difference at once, each with the nearest name there is.

use std::collections::BTreeMap;

use thalweg_graph::VarKind;
use thalweg_graph::diagnostic::nearest;
use thalweg_graph::kernel::BufferType;

use super::manifest::{GraphName, Manifest};
use super::snapshot::Variables;

/// One side of a comparison: names with what they stand for. `Err` is a type that only the other side can say.
pub(super) type Entry<'a> = (&'a str, Result<&'a BufferType, &'a str>);

/// Differences between what a model has and what a file holds.
pub(super) fn compare(model: &[Entry<'_>], file: &[Entry<'_>]) -> Vec<String> {
    let show = |ty: &Result<&BufferType, &str>| ty.map_or_else(str::to_string, |t| t.to_string());
    let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (model.iter().copied().collect(), file.iter().copied().collect());
    let only_in_file: Vec<&str> = theirs.keys().copied().filter(|name| !ours.contains_key(name)).collect();
    let mut out = Vec::new();
    for (name, want) in &ours {
        match theirs.get(name) {
            Some(got) if got == want => {}
            Some(got) => out.push(format!("`{name}` is {} in the model and {} in the file", show(want), show(got))),
            None => {
                let near = nearest(name, only_in_file.iter().copied());
                let hint = near.map_or(String::new(), |n| format!("; is it the file's `{n}`?"));
                out.push(format!("`{name}`, {}, is not in the file{hint}", show(want)));
            }
        }
    }
    out.extend(only_in_file.iter().map(|name| format!("`{name}` is in the file and not in the model")));
    out
}

/// Differences between a model's variables and a checkpoint's.
pub(super) fn variables(model: &Variables, manifest: &Manifest) -> Vec<String> {
    let ours: Vec<Entry<'_>> = model.slots.iter().map(|s| (&*s.name, Ok(&s.ty))).collect();
    let types: Vec<BufferType> = manifest.variables.iter().map(|v| v.ty()).collect();
    let theirs: Vec<Entry<'_>> = manifest.variables.iter().zip(&types).map(|(v, t)| (v.name.as_str(), Ok(t))).collect();
    let mut out = compare(&ours, &theirs);
    let kind = |name: &str| model.find(name).map(|s| s.kind);
    for theirs in &manifest.variables {
        let other = |ours: &VarKind| *ours != theirs.kind;
        if let Some(ours) = kind(&theirs.name).filter(other) {
            let (name, theirs) = (&theirs.name, theirs.kind.name());
            out.push(format!("`{name}` is a {} in the model and a {theirs} in the file", ours.name()));
        }
    }
    out
}

/// How two graphs over the same variables differ.
pub(super) fn graphs(model: &Variables, file: &GraphName) -> String {
    let mut out = Vec::new();
    if *model.graph != *file.name {
        out.push(format!("it is called `{}`, the model `{}`", file.name, model.graph));
    }
    if model.seed != file.seed {
        out.push(format!("its seed is {}, the model's {}", file.seed, model.seed));
    }
    if out.is_empty() {
        out.push(format!("its hash is {:.12}…, the model's {:.12}…", file.hash.to_string(), model.hash.to_string()));
    }
    out.join(", ")
}
