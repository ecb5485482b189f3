//! `-configfile`: the command line in a file, one program on each line.

use super::error::UsageError;
use super::scan::{Setting, Word};

/// Reads the words of a configuration file; `:` stands between its lines.
pub(super) fn read(setting: &Setting) -> Result<Vec<Word>, UsageError> {
    let file = &setting.value;
    let text = std::fs::read_to_string(file).map_err(|e| UsageError::File {
        place: setting.place.clone(),
        file: file.clone(),
        why: format!("cannot be read: {e}"),
    })?;
    words(file, &text)
}

fn words(file: &str, text: &str) -> Result<Vec<Word>, UsageError> {
    let mut out: Vec<Word> = Vec::new();
    let mut continued = false;
    for (i, raw) in text.lines().enumerate() {
        let line = i as u32 + 1;
        let (body, goes_on) = match raw.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (raw, false),
        };
        let parts = split(body).map_err(|why| UsageError::InFile {
            at: muster_core::hosts::Origin::file(file, line),
            why: why.to_owned(),
        })?;
        let word = |text| Word { text, at: Some((file.to_owned(), line)) };
        if !parts.is_empty() && !continued && !out.is_empty() {
            out.push(word(":".to_owned()));
        }
        continued = goes_on && (continued || !parts.is_empty());
        out.extend(parts.into_iter().map(word));
    }
    Ok(out)
}

/// Splits a line into words as a shell would: quotes keep blanks together, a backslash keeps the next character.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed on this line"),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(other) => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => out.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Vec<String> {
        words("f", text).unwrap().into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn lines_are_programs_and_backslashes_join_them() {
        assert_eq!(
            flat("# job\n-n 1 ./a 'x y'\n\n-n 2 \\\n  -env A \"b\\\"c\" ./b \\# # end\n"),
            ["-n", "1", "./a", "x y", ":", "-n", "2", "-env", "A", "b\"c", "./b", "#"]
        );
        assert_eq!(flat("./a \\\n"), ["./a"]);
        assert_eq!(flat("./a ''"), ["./a", ""]);
        assert_eq!(flat(""), [""; 0]);
        assert_eq!(words("f", "\n-n 1 \\\n./a").unwrap()[2].at, Some(("f".to_owned(), 3)));
    }

    #[test]
    fn an_open_quote_is_told_with_its_line() {
        insta::assert_snapshot!(words("f", "./a\n./b 'x").unwrap_err(), @"f:2: a quote is not closed on this line");
    }
}
