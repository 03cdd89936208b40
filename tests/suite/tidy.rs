//! What a reviewer would have to say again and again, as a test: one-way imports, files of a size
//! that can be read, no placeholders, no forgotten module, documents present.
//!
//! The checks are pure functions from a file's text to findings. Each one is also shown made-up bad
//! input, because a check that cannot fail is worth nothing; the last test runs them over the tree.

mod documents;
mod layers;
mod scan;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use scan::Facts;
use system_tests::workspace_root;

/// Above this a file fails; from `LINES_WORTH_A_LOOK` on it is only named.
const LINES_MAX: usize = 1000;
const LINES_WORTH_A_LOOK: usize = 600;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[&str] = &[];

/// Macros that mark unfinished work.
const PLACEHOLDERS: &[&str] = &["dbg", "todo", "unimplemented"];

/// The only file that may hold `unsafe` code.
const UNSAFE_HOME: &str = "reactor/src/sys.rs";

/// Folders of Rust that is compiled: each must start with `//!` and be reachable by `mod` lines.
const CODE_FOLDERS: &[&str] = &["src", "suite", "tests", "benches", "examples"];

/// Something that should be otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Finding {
    file: PathBuf,
    line: usize,
    rule: String,
    cure: String,
}

impl Finding {
    fn new(file: impl Into<PathBuf>, line: usize, rule: impl Into<String>, cure: &str) -> Self {
        Self { file: file.into(), line, rule: rule.into(), cure: cure.to_owned() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}\n    cure: {}", self.file.display(), self.line, self.rule, self.cure)
    }
}

/// A Rust file with its place in its crate.
struct SourceFile<'a> {
    /// Below the workspace's root.
    path: PathBuf,
    text: &'a str,
    /// Module path in the crate; empty for `lib.rs`, `main.rs` and other roots.
    module: Vec<String>,
}

impl<'a> SourceFile<'a> {
    fn new(folder: &Path, below: &Path, text: &'a str) -> Self {
        let mut module: Vec<String> = below
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
            module.pop();
        }
        Self { path: folder.join(below), text, module }
    }

    fn finding(&self, line: usize, rule: impl Into<String>, cure: &str) -> Finding {
        Finding::new(&self.path, line, rule, cure)
    }
}

#[test]
fn the_tree_is_tidy() {
    let tree = Tree::read(&workspace_root());
    assert!(tree.texts.len() > 10, "the walk found only {} files", tree.texts.len());
    for (path, lines) in tree.long_files(LINES_WORTH_A_LOOK) {
        println!("worth a look: {} has {lines} lines", path.display());
    }
    let findings = tree.findings();
    let report: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(report.is_empty(), "{} finding(s):\n{}", report.len(), report.join("\n"));
}

/// All text files of the workspace, by path below its root.
struct Tree {
    texts: Vec<(PathBuf, String)>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut texts = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(root.join(&folder)).expect("the tree can be listed");
            for entry in entries {
                let entry = entry.expect("the tree can be listed");
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = folder.join(&name);
                let kind = entry.file_type().expect("the tree can be listed");
                if kind.is_dir() {
                    let hidden = name.starts_with('.') && ![".ci", ".cargo"].contains(&&*name);
                    let made = name.starts_with("target")
                        || ["node_modules", "homeserver-data", "corpus"].contains(&&*name);
                    if !hidden && !made {
                        folders.push(path);
                    }
                } else if kind.is_file()
                    && name != ".git"
                    && let Ok(text) = std::fs::read_to_string(root.join(&path))
                {
                    texts.push((path, text));
                }
            }
        }
        texts.sort();
        Self { texts }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = documents::check_documents(self);
        for (path, text) in &self.texts {
            findings.extend(check_machine_paths(path, text));
            findings.extend(check_length(path, text));
            if path.extension().is_some_and(|extension| extension == "md") {
                findings.extend(documents::check_mentions(self, path, text));
            }
            if path.ends_with("Cargo.toml") {
                let folder = path.parent().unwrap_or(Path::new(""));
                match text.parse() {
                    Ok(manifest) => findings.extend(layers::check_manifest(folder, &manifest)),
                    Err(error) => {
                        findings.push(Finding::new(path, 1, format!("{error}"), "mend it"))
                    }
                }
            }
        }
        for (krate, folder) in self.code_folders() {
            findings.extend(self.check_code(&krate, &folder));
        }
        findings
    }

    /// Pairs of a crate's folder and a folder of code in it.
    fn code_folders(&self) -> Vec<(PathBuf, PathBuf)> {
        let manifests = self.texts.iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
        manifests
            .filter_map(|(path, _)| path.parent())
            .filter(|krate| !krate.as_os_str().is_empty())
            .flat_map(|krate| CODE_FOLDERS.iter().map(|part| (krate.to_owned(), krate.join(part))))
            .collect()
    }

    /// Everything that is asked of the Rust files in one folder of code.
    fn check_code(&self, krate: &Path, folder: &Path) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut files = Vec::new();
        for (path, text) in &self.texts {
            let Ok(below) = path.strip_prefix(folder) else { continue };
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let file = SourceFile::new(folder, below, text);
            let module: Vec<&str> = file.module.iter().map(String::as_str).collect();
            match scan::scan(text, &module) {
                Ok(facts) => files.push((file, facts)),
                Err(error) => findings.push(file.finding(1, error, "make it compile")),
            }
        }
        for (file, facts) in &files {
            findings.extend(check_opening(file));
            findings.extend(check_placeholders(file, facts));
            findings.extend(check_unsafe(file, facts));
            if krate == Path::new("apps/homeserver") && folder.ends_with("src") {
                findings.extend(layers::check_layers(file, facts));
            }
        }
        findings.extend(check_forgotten_files(folder, &files));
        findings
    }

    fn long_files(&self, lines: usize) -> impl Iterator<Item = (&Path, usize)> {
        self.texts
            .iter()
            .filter(|(path, _)| is_written_by_hand(path))
            .map(|(path, text)| (path.as_path(), text.lines().count()))
            .filter(move |(_, count)| *count > lines)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.texts.iter().map(|(path, _)| path.as_path())
    }

    fn text(&self, path: &str) -> Option<&str> {
        let found = self.texts.iter().find(|(candidate, _)| candidate == Path::new(path));
        found.map(|(_, text)| text.as_str())
    }
}

fn check_length(path: &Path, text: &str) -> Vec<Finding> {
    let count = text.lines().count();
    let excused = LONG_FILES.iter().any(|long| path == Path::new(long));
    if count <= LINES_MAX || excused || !is_written_by_hand(path) {
        return Vec::new();
    }
    let rule = format!("{count} lines, the limit is {LINES_MAX}");
    let cure = "look for the second noun or the second reason to change and give it its own file";
    vec![Finding::new(path, LINES_MAX + 1, rule, cure)]
}

fn is_written_by_hand(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "py" | "mjs" | "js" | "sh"))
}

/// Text that only holds on the machine it was written on.
fn check_machine_paths(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for folder in ["home", "root", "work", "Users"] {
            let needle = format!("/{folder}/");
            let absolute = line.match_indices(&needle).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| before.is_alphanumeric() || "._-}*:)".contains(before))
            });
            if absolute {
                let rule = format!("names the absolute path {needle}...");
                let cure = "use a relative path, a temporary folder or an example under /var/lib";
                findings.push(Finding::new(path, index + 1, rule, cure));
            }
        }
    }
    findings
}

fn check_opening(file: &SourceFile) -> Vec<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty());
    if first.is_some_and(|line| line.starts_with("//!")) {
        return Vec::new();
    }
    let cure = "open with a `//!` paragraph: what the file owns and what it deliberately does not";
    vec![file.finding(1, "does not say what it is for", cure)]
}

fn check_placeholders(file: &SourceFile, facts: &Facts) -> Vec<Finding> {
    let unfinished = facts.macros.iter().filter(|(name, _)| PLACEHOLDERS.contains(&name.as_str()));
    let cure = "finish it, or return an error that says what is not supported";
    unfinished.map(|(name, line)| file.finding(*line, format!("holds `{name}!`"), cure)).collect()
}

fn check_unsafe(file: &SourceFile, facts: &Facts) -> Vec<Finding> {
    if file.path == Path::new(UNSAFE_HOME) {
        return Vec::new();
    }
    let cure = format!("use a well-kept crate's safe wrapper, or move the block to {UNSAFE_HOME}");
    facts.unsafe_lines.iter().map(|&line| file.finding(line, "`unsafe` code", &cure)).collect()
}

/// A file that no `mod` line asks for is silently never compiled, its tests never run.
fn check_forgotten_files(folder: &Path, files: &[(SourceFile, Facts)]) -> Vec<Finding> {
    let listed: BTreeSet<&[String]> =
        files.iter().flat_map(|(_, facts)| &facts.child_files).map(Vec::as_slice).collect();
    let mut findings = Vec::new();
    for (file, _) in files {
        let name = file.path.file_name().and_then(|name| name.to_str());
        let is_target = match folder.file_name().and_then(|name| name.to_str()) {
            // Cargo finds these by itself: tests/a.rs, benches/b.rs, examples/c.rs.
            Some("tests" | "benches" | "examples") => {
                file.module.len() == 1 || name == Some("main.rs")
            }
            _ => file.module.is_empty() || file.module.first().is_some_and(|part| part == "bin"),
        };
        // Below a folder with its own main.rs, `mod` lines count from there.
        let in_own_binary = file.module.get(1..).is_some_and(|rest| listed.contains(rest));
        if !is_target && !listed.contains(file.module.as_slice()) && !in_own_binary {
            let rule = "no `mod` line asks for this file, so it is never compiled";
            findings.push(file.finding(1, rule, "add the `mod` line to its parent, or delete it"));
        }
    }
    findings
}

/// The checks on made-up files: each must fail where it should and be silent where it should not.
mod checks {
    use super::*;

    /// Findings in a tree of one made-up file, documents left aside.
    fn found(path: &str, text: &str) -> Vec<String> {
        let manifest = |folder: &str| (PathBuf::from(folder).join("Cargo.toml"), String::new());
        let mut texts = vec![manifest("reactor"), manifest("apps/homeserver"), manifest("tests")];
        texts.push((PathBuf::from(path), text.to_owned()));
        let documents = |finding: &Finding| finding.file.components().count() == 1;
        let findings = Tree { texts }.findings().into_iter().filter(|finding| !documents(finding));
        findings.map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
    }

    #[test]
    fn rust_files_are_held_to_the_rules() {
        let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        let at_home = format!("//! Mine.\nconst D: &str = \"/{}/me/x\";", "home");
        let machine_path = format!("2: names the absolute path /{}/...", "home");
        for (why, path, text, expected) in [
            ("a good file", "reactor/src/lib.rs", "//! Fine.\nfn f() {}", ""),
            ("no opening", "reactor/src/lib.rs", "fn f() {}", "1: does not say what it is for"),
            ("empty", "reactor/src/lib.rs", "", "1: does not say what it is for"),
            (
                "placeholder",
                "reactor/src/lib.rs",
                "//! X.\nfn f() {\n    todo!()\n}",
                "3: holds `todo!`",
            ),
            (
                "placeholder in a test",
                "tests/suite/main.rs",
                "//! X.\nfn f() { dbg!(1); }",
                "2: holds `dbg!`",
            ),
            (
                "talking of one",
                "reactor/src/lib.rs",
                "//! Never `todo!()`.\nconst S: &str = \"todo!()\";",
                "",
            ),
            (
                "unsafe at home",
                "reactor/src/lib.rs",
                "//! X.\nfn f() { unsafe { g() } }",
                "2: `unsafe` code",
            ),
            (
                "too long",
                "reactor/src/lib.rs",
                long.as_str(),
                "1001: 1001 lines, the limit is 1000",
            ),
            ("a machine's path", "reactor/src/lib.rs", at_home.as_str(), machine_path.as_str()),
            (
                "part of a URL",
                "reactor/src/lib.rs",
                "//! See example.org/work/x and target/root/y.",
                "",
            ),
            (
                "forgotten",
                "reactor/src/lost.rs",
                "//! X.",
                "1: no `mod` line asks for this file, so it is never compiled",
            ),
            (
                "a forgotten test",
                "tests/suite/lost.rs",
                "//! X.",
                "1: no `mod` line asks for this file, so it is never compiled",
            ),
            ("cargo finds it", "reactor/tests/timers.rs", "//! X.", ""),
            (
                "not Rust",
                "reactor/src/lib.rs",
                "//! X.\nfn f( {",
                "1: cannot parse string into token stream",
            ),
            (
                "upwards",
                "apps/homeserver/src/model/mod.rs",
                "//! X.\nuse crate::api::X;",
                "2: model reaches upwards into api|1: no `mod` line asks for this file, so it is never compiled",
            ),
        ] {
            let expected: Vec<&str> = expected.split('|').filter(|rule| !rule.is_empty()).collect();
            assert_eq!(found(path, text), expected, "{why}: {path}");
        }
    }

    #[test]
    fn modules_are_followed_through_folders() {
        let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
        let texts = vec![
            file("reactor/Cargo.toml", ""),
            file("reactor/src/lib.rs", "//! X.\nmod a;\npub mod b;"),
            file("reactor/src/a.rs", "//! X.\nmod c;"),
            file("reactor/src/a/c.rs", "//! X."),
            file("reactor/src/b/mod.rs", "//! X.\n#[cfg(test)]\nmod d;"),
            file("reactor/src/b/d.rs", "//! X."),
            file("reactor/tests/all/main.rs", "//! X.\nmod e;"),
            file("reactor/tests/all/e.rs", "//! X."),
            file("reactor/tests/all/lost.rs", "//! X."),
        ];
        let findings = Tree { texts }.check_everything_but_documents();
        let files: Vec<String> =
            findings.iter().map(|finding| finding.file.display().to_string()).collect();
        assert_eq!(files, ["reactor/tests/all/lost.rs"]);
    }

    #[test]
    fn a_finding_says_where_what_and_how_to_mend_it() {
        let finding = Finding::new("a/b.rs", 7, "too long", "cut it");
        assert_eq!(finding.to_string(), "a/b.rs:7: too long\n    cure: cut it");
    }

    impl Tree {
        fn check_everything_but_documents(&self) -> Vec<Finding> {
            let mut findings = self.findings();
            findings.retain(|finding| finding.file.components().count() > 1);
            findings
        }
    }
}
