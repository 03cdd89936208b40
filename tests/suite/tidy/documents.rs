//! What the documents must be, and that the files they speak of are there.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Tree};

/// The documents at the root, and what each cannot do without.
const DOCUMENTS: &[(&str, &str, &str)] = &[
    ("README.md", "cargo test --workspace", "say what it is and how to run its tests"),
    ("ARCHITECTURE.md", "#", "give the bird's-eye view, the folders and the invariants"),
    ("CHANGELOG.md", "## [Unreleased]", "keep the heading for what comes next"),
    ("LICENSE-APACHE", "Apache License", "put the licence's text back"),
    ("LICENSE-MIT", "Permission is hereby granted", "put the licence's text back"),
];

/// Checks that the documents are there and say something.
pub(super) fn check_documents(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for &(name, must_say, cure) in DOCUMENTS {
        match tree.text(name) {
            None => findings.push(Finding::new(name, 1, "missing", cure)),
            Some(text) if !text.contains(must_say) => {
                findings.push(Finding::new(name, 1, format!("does not say `{must_say}`"), cure));
            }
            Some(_) => {}
        }
    }
    findings
}

/// Checks one document's mentions of Rust files, by the end of their paths, and its relative links.
pub(super) fn check_mentions(tree: &Tree, document: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|word| is_rust_path(word)) {
            if !tree.paths().any(|path| path.ends_with(name)) {
                let rule = format!("speaks of {name}, which is not there");
                let cure = "name the file that holds it now, or say nothing of files";
                findings.push(Finding::new(document, index + 1, rule, cure));
            }
        }
        for link in line.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = link.0.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let folder = document.parent().unwrap_or(Path::new(""));
            let target_path = flatten(&folder.join(target));
            if !tree.paths().any(|path| path.starts_with(&target_path)) {
                let rule = format!("links to {target}, which is not there");
                findings.push(Finding::new(document, index + 1, rule, "mend the link"));
            }
        }
    }
    findings
}

fn is_rust_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    word.len() > ".rs".len() && word.ends_with(".rs") && word.chars().all(plain)
}

/// Takes `a/../` and `./` out of a path.
fn flatten(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(flat.pop()),
            Component::CurDir => {}
            part => flat.push(part),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| (PathBuf::from(path), (*text).to_owned());
        Tree { texts: files.iter().map(file).collect() }
    }

    #[test]
    fn documents_must_be_there_and_say_something() {
        let tree =
            tree(&[("README.md", "# Ropewalk"), ("CHANGELOG.md", "# Changelog\n## [Unreleased]")]);
        let found: Vec<String> = check_documents(&tree)
            .iter()
            .map(|finding| format!("{}: {}", finding.file.display(), finding.rule))
            .collect();
        assert_eq!(
            found,
            [
                "README.md: does not say `cargo test --workspace`",
                "ARCHITECTURE.md: missing",
                "LICENSE-APACHE: missing",
                "LICENSE-MIT: missing",
            ]
        );
    }

    #[test]
    fn what_documents_speak_of_must_be_there() {
        let tree = tree(&[("apps/x/README.md", ""), ("apps/x/src/api/auth.rs", ""), ("B.md", "")]);
        for (why, text, expected) in [
            ("a whole path", "see `apps/x/src/api/auth.rs`", ""),
            ("the end of one", "`api/auth.rs` and `auth.rs`", ""),
            ("half a name", "`th.rs`", "1: speaks of th.rs, which is not there"),
            ("gone", "a\n`api/gone.rs`", "2: speaks of api/gone.rs, which is not there"),
            ("a pattern", "`api/{a,b}.rs`, `*.rs`, `.rs`", ""),
            ("a good link", "[b](../../B.md#part), [src](src/), [own](#here)", ""),
            ("elsewhere", "[b](https://example.org/x.md)", ""),
            ("a broken link", "[b](../B.md)", "1: links to ../B.md, which is not there"),
        ] {
            let found: Vec<String> = check_mentions(&tree, Path::new("apps/x/README.md"), text)
                .iter()
                .map(|finding| format!("{}: {}", finding.line, finding.rule))
                .collect();
            let expected: Vec<&str> =
                Some(expected).filter(|rule| !rule.is_empty()).into_iter().collect();
            assert_eq!(found, expected, "{why}: {text}");
        }
    }
}
