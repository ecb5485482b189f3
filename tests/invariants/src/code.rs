//! Rust source as far as the rules need it: without comments and literals, without tests, by function.

/// The source with comments and the insides of string and character literals replaced by spaces. Lines stay where they are.
pub fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => line_end(&chars, at),
            ('/', Some('*')) => comment_end(&chars, at),
            ('"', _) => string_end(&chars, at),
            ('\'', _) => char_end(&chars, at),
            ('r', Some('"' | '#')) if starts_word(&chars, at) => raw_end(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a word begins here; the prefixes of byte and C strings belong to the literal.
fn starts_word(chars: &[char], at: usize) -> bool {
    match at.checked_sub(1).map(|before| chars[before]) {
        Some('b' | 'c') => at < 2 || !is_word(chars[at - 2]),
        Some(before) => !is_word(before),
        None => true,
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) if depth == 1 => return i + 2,
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of a character literal; `at` itself for a lifetime.
fn char_end(chars: &[char], at: usize) -> usize {
    match chars.get(at + 1) {
        Some('\\') => chars[at + 3..].iter().position(|c| *c == '\'').map_or(chars.len(), |n| at + 4 + n),
        Some(_) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

/// The end of a raw string; `at` itself for a raw identifier.
fn raw_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes = |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// The code with everything under `#[cfg(test)]` blanked. Takes what [`code_only`] returns.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(&out, start).unwrap_or(out.len());
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// The end of the item at `start`: its closing brace, or its semicolon.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let (mut depth, mut inner) = (0usize, 0usize);
    for (i, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => inner += 1,
            ')' | ']' => inner = inner.saturating_sub(1),
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(start + i + 1),
            '}' => depth -= 1,
            ';' if depth == 0 && inner == 0 => return Some(start + i + 1),
            _ => {}
        }
    }
    None
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of its signature, from 1.
    pub line: usize,
    /// Lines from signature to closing brace.
    pub lines: usize,
}

/// Every function with a body. Takes what [`code_only`] returns.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in words(code, "fn") {
        let name: String = code[start + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
        let Some(end) = item_end(code, start).filter(|end| !name.is_empty() && code[..*end].ends_with('}')) else {
            continue;
        };
        let line = line_of(code, start);
        found.push(Function { name, line, lines: line_of(code, end) - line + 1 });
    }
    found
}

/// Every place where a word stands by itself: offset and line, from 1.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_word);
        let after = code[at + word.len()..].chars().next().is_some_and(is_word);
        (!before && !after).then(|| (at, line_of(code, at)))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let source = "a // unsafe\n/* unsafe /* x */ unsafe */ b \"unsafe \\\" {\" c '{' '\\'' '\\u{7b}' 'l r#\"unsafe \"x\"# br\"{\" d r#fn";
        let code = code_only(source);
        assert_eq!(code.lines().count(), 2);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "'l", "b", "d", "r#fn"]);
    }

    #[test]
    fn test_modules_are_blanked_and_what_follows_stays() {
        let source = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod t;\nfn b() {}\n#[cfg(test)]\nmod u {\n    fn c() {}\n}\nfn d() {}\n";
        let names: Vec<String> = functions(&without_tests(&code_only(source))).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b", "d"]);
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let source = "trait T { fn none(&self) -> [u8; 2]; }\npub async fn one(a: [u8; 4]) -> u8\nwhere\n    u8: Copy,\n{\n    let s = \"}\";\n}\n";
        assert_eq!(functions(&code_only(source)), [Function { name: "one".into(), line: 2, lines: 6 }]);
    }

    #[test]
    fn words_stand_by_themselves() {
        let lines: Vec<usize> =
            words("unsafe_code\nunsafe {\nan_unsafe\n#[unsafe(x)]", "unsafe").map(|(_, line)| line).collect();
        assert_eq!(lines, [2, 4]);
    }
}
