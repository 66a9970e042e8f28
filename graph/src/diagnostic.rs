//! What is wrong, for people: one value, drawn as annotated source, as a JSON line, or as plain text. Built where the
//! mistake is found and drawn in one place, so that no error invents its own layout.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::ir::Site;

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Which rule broke: `matmul.C2`.
    pub code: String,
    /// What is wrong, in one sentence with the shapes.
    pub message: String,
    /// Where.
    pub site: Site,
    /// What to say at that place.
    pub label: String,
    /// Other places that matter, and what to say there.
    pub others: Vec<(Site, String)>,
    /// Further facts.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at `site`.
    pub fn new(code: impl Into<String>, message: impl Into<String>, site: Site) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            site,
            label: String::new(),
            others: vec![],
            notes: vec![],
            help: None,
        }
    }
    /// What to say at the place itself.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
    /// Another place that matters.
    pub fn also(mut self, site: Site, label: impl Into<String>) -> Self {
        self.others.push((site, label.into()));
        self
    }
    /// A further fact.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
    /// What to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Drawn on the user's source where `read_source` can give it, with colours if asked.
    pub fn render(&self, color: bool, read_source: &dyn Fn(&str) -> Option<String>) -> String {
        let title = Level::ERROR.primary_title(&self.message).id(&self.code);
        let mut places = vec![(&self.site, self.label.as_str(), AnnotationKind::Primary)];
        let mut plain = Vec::new();
        for (site, label) in &self.others {
            if site == &self.site || places.iter().any(|(s, ..)| *s == site) {
                plain.push(label.clone());
            } else {
                places.push((site, label, AnnotationKind::Context));
            }
        }
        let mut files: Vec<(&str, String)> = Vec::new();
        for (site, ..) in &places {
            if !files.iter().any(|(f, _)| *f == &*site.file)
                && !site.file.is_empty()
                && let Some(source) = read_source(&site.file)
            {
                files.push((&site.file, source));
            }
        }
        let mut group = Group::with_title(title);
        let mut drawn = vec![false; places.len()];
        for (file, source) in &files {
            let mut snippet = Snippet::source(source.as_str()).path(*file);
            for (k, (site, label, kind)) in places.iter().enumerate() {
                if &*site.file == *file
                    && let Some(span) = span_of(source, site)
                {
                    snippet = snippet.annotation(kind.span(span).label(*label));
                    drawn[k] = true;
                }
            }
            group = group.element(snippet);
        }
        for (k, (site, label, _)) in places.iter().enumerate() {
            if !drawn[k] {
                plain.push(if label.is_empty() || *label == "here" {
                    format!("at {site}")
                } else {
                    format!("{label} (at {site})")
                });
            }
        }
        for line in plain.iter().chain(&self.notes) {
            group = group.element(Level::NOTE.message(line.as_str()));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// The expression that starts at a site: to the end of its identifier, call and arguments on that line.
fn span_of(source: &str, site: &Site) -> Option<std::ops::Range<usize>> {
    let line = source.lines().nth(site.line.checked_sub(1)? as usize)?;
    let line_start = line.as_ptr() as usize - source.as_ptr() as usize;
    let column = line.char_indices().nth(site.column.checked_sub(1)? as usize).map_or(line.len(), |(i, _)| i);
    let mut depth = 0usize;
    let mut end = line.len();
    for (i, c) in line[column..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' if depth == 0 => {
                end = column + i;
                break;
            }
            ')' | ']' => {
                depth -= 1;
                if depth == 0 {
                    end = column + i + 1;
                    break;
                }
            }
            ';' | ',' if depth == 0 => {
                end = column + i;
                break;
            }
            _ => {}
        }
    }
    let end = column + line[column..end].trim_end().len();
    Some(line_start + column..line_start + end.max((column + 1).min(line.len())))
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false, &|_| None))
    }
}

/// The known name nearest to `name`, if one is near: by edit distance with transpositions, at most a third of its length (but
/// one), and at most half of the longer of the two, so that names of one letter are not all near each other.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    let near = |(d, k): &(usize, &str)| *d <= length.max(3) / 3 && 2 * *d <= length.max(k.chars().count());
    known.map(|k| (distance(name, k), k)).filter(near).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let swap = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + swap);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_drawn_on_the_users_source() {
        let source = "let x = g.input(\"image\", F32, shape![b, 784]);\nlet h = x.matmul(w1);\n";
        let at = |line, column| Site { file: "examples/mlp.rs".into(), line, column };
        let mistake = Diagnostic::new("matmul.C2", "inner dimensions must agree: 784 and 512", at(2, 11))
            .label("here")
            .also(at(1, 11), "`lhs` is f32[b, 784]")
            .help("declare the right operand as [784, n]");
        let drawn = mistake.render(false, &|_| Some(source.into()));
        assert!(drawn.contains("error[matmul.C2]: inner dimensions"), "{drawn}");
        assert!(drawn.contains("--> examples/mlp.rs:2:11"), "{drawn}");
        assert!(drawn.contains("`lhs` is f32[b, 784]"), "{drawn}");
        assert!(drawn.contains("help: declare the right operand"), "{drawn}");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("imgae", ["image", "label"].into_iter()), Some("image"));
        assert_eq!(nearest("temperature", ["image", "label"].into_iter()), None);
        assert_eq!(nearest("z", ["x", "y"].into_iter()), None);
        assert_eq!(nearest("", ["x"].into_iter()), None);
        assert_eq!(nearest("yy", ["x", "y"].into_iter()), Some("y"));
        assert_eq!(nearest("w", ["x", "w1"].into_iter()), Some("w1"));
    }
}
