//! Reads one Rust file's tokens and says what it names: paths, modules, macros and `unsafe`.
//!
//! Works on tokens and not on text, so that comments and strings never count, and needs no syntax
//! tree: macro bodies are looked into like everything else. Knows nothing of any rule.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path as written somewhere in the file, with `crate`, `self` and `super` resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NamedPath {
    pub(super) line: usize,
    pub(super) root: Root,
    /// Segments after the root; a glob import ends in `*`.
    pub(super) segments: Vec<String>,
}

/// Where a [`NamedPath`] starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Root {
    /// At the root of the crate that the file belongs to.
    Crate,
    /// At some other name: another crate, or a name in scope.
    Name(String),
}

/// What a file names.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) paths: Vec<NamedPath>,
    /// `mod name;` lines: each the full module path of the file that is asked for.
    pub(super) child_files: Vec<Vec<String>>,
    /// `name!` invocations with their lines.
    pub(super) macros: Vec<(String, usize)>,
    /// Lines with the keyword `unsafe`.
    pub(super) unsafe_lines: Vec<usize>,
}

/// Reads the text of the file that is module `module` (empty for a crate's root).
///
/// # Errors
///
/// The lexer's complaint, if the text is not Rust.
pub(super) fn scan(text: &str, module: &[&str]) -> Result<Facts, String> {
    let tokens = TokenStream::from_str(text).map_err(|error| error.to_string())?;
    let mut facts = Facts::default();
    let module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
    walk(tokens, &module, &mut facts);
    Ok(facts)
}

fn walk(tokens: TokenStream, module: &[String], facts: &mut Facts) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Group(group) => walk(group.stream(), module, facts),
            TokenTree::Ident(ident) => {
                let (name, line) = (ident.to_string(), ident.span().start().line);
                if name == "mod" && is_ident(&tokens, at + 1) {
                    at = module_item(&tokens, at + 1, module, facts);
                    continue;
                }
                if name == "use" && !is_punct(&tokens, at + 1, '<') {
                    let mut cursor = at + 1;
                    use_tree(&tokens, &mut cursor, &mut Vec::new(), module, line, facts);
                    at = cursor;
                    continue;
                }
                if name == "unsafe" {
                    facts.unsafe_lines.push(line);
                }
                if is_punct(&tokens, at + 1, '!') && !is_punct(&tokens, at + 2, '=') {
                    facts.macros.push((name, line));
                } else if is_path_separator(&tokens, at + 1) && !follows_path(&tokens, at) {
                    let mut written = vec![name];
                    at = path_tail(&tokens, at + 1, &mut written);
                    if is_punct(&tokens, at, '!') {
                        facts.macros.extend(written.last().map(|last| (last.clone(), line)));
                    }
                    record(&written, module, line, facts);
                    continue;
                }
            }
            TokenTree::Literal(_) | TokenTree::Punct(_) => {}
        }
        at += 1;
    }
}

/// `mod name;` or `mod name { .. }`, from its name; returns where to go on.
fn module_item(tokens: &[TokenTree], at: usize, module: &[String], facts: &mut Facts) -> usize {
    let mut inner = module.to_vec();
    inner.push(tokens[at].to_string());
    match tokens.get(at + 1) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            walk(group.stream(), &inner, facts);
            at + 2
        }
        _ => {
            facts.child_files.push(inner);
            at + 1
        }
    }
}

/// One branch of a `use` declaration; `written` is what stands before it.
fn use_tree(
    tokens: &[TokenTree],
    at: &mut usize,
    written: &mut Vec<String>,
    module: &[String],
    line: usize,
    facts: &mut Facts,
) {
    let depth = written.len();
    while let Some(token) = tokens.get(*at) {
        match token {
            TokenTree::Ident(ident) if ident == "as" => *at += 1,
            TokenTree::Ident(ident) => {
                if !matches!(tokens.get(at.wrapping_sub(1)), Some(TokenTree::Ident(before)) if before == "as")
                {
                    written.push(ident.to_string());
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => written.push("*".to_owned()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut cursor = 0;
                while cursor < inner.len() {
                    let line = inner[cursor].span().start().line;
                    use_tree(&inner, &mut cursor, &mut written.clone(), module, line, facts);
                    cursor += 1; // the comma
                }
                *at += 1;
                return;
            }
            _ => break, // `;` or `,`
        }
        *at += 1;
    }
    if written.len() > depth {
        record(written, module, line, facts);
    }
}

/// Appends the segments of `::a::b` from `at` on; returns the index after them.
fn path_tail(tokens: &[TokenTree], mut at: usize, written: &mut Vec<String>) -> usize {
    while is_path_separator(tokens, at) {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(ident)) => written.push(ident.to_string()),
            _ => return at + 2, // a turbofish, or a brace in macro input
        }
        at += 3;
    }
    at
}

fn record(written: &[String], module: &[String], line: usize, facts: &mut Facts) {
    let mut segments = written.iter().peekable();
    let mut base: Option<Vec<String>> = None;
    while let Some(segment) = segments.peek() {
        match segment.as_str() {
            "crate" => base = Some(Vec::new()),
            "self" if base.is_none() => base = Some(module.to_vec()),
            "super" => {
                base.get_or_insert_with(|| module.to_vec()).pop();
            }
            _ => break,
        }
        segments.next();
    }
    let rest: Vec<String> = segments.filter(|&segment| segment != "self").cloned().collect();
    let path = match base {
        Some(mut path) => {
            path.extend(rest);
            NamedPath { line, root: Root::Crate, segments: path }
        }
        None => match rest.split_first() {
            Some((first, rest)) => {
                NamedPath { line, root: Root::Name(first.clone()), segments: rest.to_vec() }
            }
            None => return,
        },
    };
    facts.paths.push(path);
}

fn is_ident(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Ident(_)))
}

fn is_punct(tokens: &[TokenTree], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

/// Whether the identifier at `at` goes on an earlier path, as in `Vec::<u8>::new`.
fn follows_path(tokens: &[TokenTree], at: usize) -> bool {
    at >= 3
        && is_path_separator(tokens, at - 2)
        && (is_ident(tokens, at - 3) || is_punct(tokens, at - 3, '>'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_paths(text: &str, module: &[&str]) -> Vec<String> {
        let facts = scan(text, module).unwrap();
        let own = facts.paths.into_iter().filter(|path| path.root == Root::Crate);
        own.map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        for (why, text, expected) in [
            ("a plain import", "use crate::storage::Rooms;", vec!["storage::Rooms"]),
            ("renamed", "use crate::storage as s;", vec!["storage"]),
            ("public", "pub(crate) use crate::api::Route;", vec!["api::Route"]),
            (
                "nested trees",
                "use crate::{api::{self, Route}, model::Event as E, streams::*};",
                vec!["api", "api::Route", "model::Event", "streams::*"],
            ),
            ("one super", "use super::Sibling;", vec!["storage::Sibling"]),
            ("two supers", "use super::super::api::Route;", vec!["api::Route"]),
            ("self", "use self::inner::Row;", vec!["storage::rooms::inner::Row"]),
            ("in a function body", "fn f() { crate::api::call(1) }", vec!["api::call"]),
            ("with a turbofish", "fn f() { crate::api::<u8>() }", vec!["api"]),
            ("in a macro's input", "log!(\"x {}\", crate::api::NAME);", vec!["api::NAME"]),
            ("a type", "struct S(Option<crate::api::Route>);", vec!["api::Route"]),
            (
                "an inline module's super is the file",
                "mod tests { use super::Row; use super::super::Rooms; }",
                vec!["storage::rooms::Row", "storage::Rooms"],
            ),
            ("visibility is no path", "pub(crate) struct S; pub(super) fn f() {}", vec![]),
            ("comments are no paths", "// use crate::api;\n/// crate::api\nfn f() {}", vec![]),
            ("strings are no paths", "const S: &str = \"crate::api\";", vec![]),
            ("a method is no path", "fn f(&self) { self.api() }", vec![]),
            ("precise captures are no import", "fn f() -> impl Sized + use<'_> {}", vec![]),
        ] {
            assert_eq!(crate_paths(text, &["storage", "rooms"]), expected, "{why}: {text}");
        }
    }

    #[test]
    fn other_crates_are_named_by_their_first_segment() {
        let text =
            "use ropewalk_http::Request;\nfn f() { rusqlite::Error::new(); Vec::<u8>::new() }";
        let facts = scan(text, &[]).unwrap();
        let named: Vec<_> = facts.paths.iter().map(|path| (path.line, path.root.clone())).collect();
        let name = |name: &str| Root::Name(name.to_owned());
        assert_eq!(named, [(1, name("ropewalk_http")), (2, name("rusqlite")), (2, name("Vec"))]);
    }

    #[test]
    fn modules_macros_and_unsafe_are_listed_with_their_places() {
        let text = "mod a;\nmod inner { mod deep; }\nfn f() {\n    todo!(); std::dbg!();\n    unsafe { g() }\n}";
        let facts = scan(text, &["m"]).unwrap();
        assert_eq!(facts.child_files, [vec!["m", "a"], vec!["m", "inner", "deep"]]);
        assert_eq!(facts.macros, [("todo".to_owned(), 4), ("dbg".to_owned(), 4)]);
        assert_eq!(facts.unsafe_lines, [5]);
        assert!(scan("fn f( {", &[]).is_err());
    }
}
