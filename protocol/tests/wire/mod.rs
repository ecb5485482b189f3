//! Reads the sources of the wire: what counts for the hash, and which fields and variants there are.
//!
//! It understands these sources as rustfmt leaves them, not Rust at large; the test that counts rows notices when it no
//! longer does.

/// A field or variant as the document shall list it.
pub(super) struct Row {
    /// Its number on the wire.
    pub(super) number: String,
    /// Its name.
    pub(super) name: String,
    /// A field's type, or a variant's fields, in the document's words.
    pub(super) kind: String,
}

fn before_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

/// The code before the tests, without comments, white space and the commas that line breaks bring along.
pub(super) fn essence(source: &str) -> String {
    let code: String = before_tests(source).lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
    let mut dense: String = code.split_whitespace().collect();
    for close in ["}", ")", "]"] {
        dense = dense.replace(&format!(",{close}"), close);
    }
    dense
}

/// Every structure and enumeration with numbered fields or variants, and every message without fields.
pub(super) fn types(source: &str) -> Vec<(String, Vec<Row>)> {
    let mut found = Vec::new();
    let mut lines = before_tests(source).lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) else { continue };
        let Some((name, open)) = rest.split_once(' ') else { continue };
        if open == "{}" {
            found.push((name.to_owned(), Vec::new()));
        } else if open == "{" {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").map(str::trim).collect();
            let rows = if line.starts_with("pub struct ") { fields(&body) } else { variants(&body) };
            if !rows.is_empty() {
                found.push((name.to_owned(), rows));
            }
        }
    }
    found
}

fn number(line: &str) -> Option<&str> {
    line.strip_prefix("#[n(")?.strip_suffix(")]")
}

fn fields(body: &[&str]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut last = None;
    for line in body {
        if let Some(number) = number(line) {
            last = Some(number);
        } else if let Some((name, kind)) = line.trim_start_matches("pub ").split_once(": ")
            && !line.starts_with("//")
            && let Some(number) = last.take()
        {
            let kind = in_words(kind.trim_end_matches(','));
            rows.push(Row { number: number.to_owned(), name: name.to_owned(), kind });
        }
    }
    rows
}

fn variants(body: &[&str]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last = None;
    let mut lines = body.iter();
    while let Some(line) = lines.next() {
        if let Some(number) = number(line) {
            last = Some(number);
            continue;
        }
        if line.starts_with("//") || line.starts_with('#') {
            continue;
        }
        let Some(number) = last.take() else { continue };
        let (name, kind) = if let Some(name) = line.strip_suffix(" {") {
            let inner: Vec<&str> = lines.by_ref().copied().take_while(|line| *line != "},").collect();
            let inner = fields(&inner).into_iter().map(|row| format!("`{}` {}", row.name, row.kind));
            (name, inner.collect::<Vec<_>>().join(", "))
        } else if let Some((name, inner)) = line.split_once("(#[n(0)] ") {
            (name, in_words(inner.trim_end_matches("),")))
        } else {
            (line.trim_end_matches(','), "—".to_owned())
        };
        rows.push(Row { number: number.to_owned(), name: name.to_owned(), kind });
    }
    rows
}

/// A type in the document's words.
fn in_words(kind: &str) -> String {
    let inside = |head: &str| kind.strip_prefix(head).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Vec<") {
        format!("list of {}", in_words(inner))
    } else if let Some(inner) = inside("Option<") {
        format!("optional {}", in_words(inner))
    } else {
        match kind {
            "String" => "text".to_owned(),
            "ByteVec" => "bytes".to_owned(),
            other => other.to_owned(),
        }
    }
}
