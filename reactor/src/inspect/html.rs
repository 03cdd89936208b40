//! A snapshot as a page of HTML.

use std::fmt::Write;

use super::{Snapshot, Table};

impl Snapshot {
    /// Returns the tables as a whole page: without scripts, without anything that it would have to load.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut page = String::from(BEGINNING);
        for table in &self.tables {
            push_table(&mut page, table);
        }
        page.push_str("</body>\n</html>\n");
        page
    }
}

const BEGINNING: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <title>Reactor</title>\n<style>\n\
    body { font-family: sans-serif; margin: 2em }\n\
    table { border-collapse: collapse }\n\
    th, td { text-align: left; padding: 0.1em 1em 0.1em 0; font-variant-numeric: tabular-nums }\n\
    tr:hover { background: #eee }\n\
    </style>\n</head>\n<body>\n";

fn push_table(page: &mut String, table: &Table) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<h2>{} ({})</h2>", table.title, table.count);
    if table.rows.is_empty() {
        return;
    }
    page.push_str("<table>\n<tr>");
    for column in table.columns {
        let _ = write!(page, "<th>{column}</th>");
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            page.push_str("<td>");
            push_escaped(page, cell);
            page.push_str("</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
    if table.count > table.rows.len() {
        let _ = writeln!(page, "<p>{} in all</p>", table.count);
    }
}

/// Names of contexts may hold what a peer has sent.
fn push_escaped(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            other => page.push(other),
        }
    }
}
