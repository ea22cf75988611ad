//! Rust source as far as the walls need it: words and signs, the items of tests, paths.
//!
//! No parser: a file that does not compile is rustc's business, and one that does has balanced
//! braces.

/// A word or a sign of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The line it stands on, from 1.
    line: usize,
    /// How many modules of its own file it stands in.
    inner: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_word(self) -> bool {
        self.text
            .starts_with(|c: char| c == '_' || c.is_alphanumeric())
    }
}

/// The words and signs of `text`; comments, strings and characters are left out.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, kept) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            _ if rest.starts_with("::") => (2, true),
            '"' => (string(rest), false),
            '\'' => (character(rest), false),
            'r' | 'b' | 'c' if raw_string(rest).is_some() => {
                (raw_string(rest).expect("the guard has seen it"), false)
            }
            'b' | 'c' if rest[1..].starts_with('"') => (1 + string(&rest[1..]), false),
            _ if first == '_' || first.is_alphanumeric() => (word(rest), true),
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        if kept {
            found.push(Token {
                line,
                inner: 0,
                text: &rest[..length],
            });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    count_modules(&mut found);
    found
}

/// Fills in [`Token::inner`]: a brace behind `mod name` opens a module.
fn count_modules(tokens: &mut [Token<'_>]) {
    let mut braces = Vec::new();
    for at in 0..tokens.len() {
        match tokens[at].text {
            "{" => braces.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => drop(braces.pop()),
            _ => {}
        }
        tokens[at].inner = braces.iter().filter(|module| **module).count();
    }
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut open, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (open, at) = (open + 1, at + 2),
            [b'*', b'/', ..] => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

/// A string up to its closing quote; a backslash takes the next character with it.
fn string(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and so on, with `b` or `c` before.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest
        .strip_prefix(['b', 'c'])
        .unwrap_or(rest)
        .strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body
        .find(&close)
        .map_or(body.len(), |end| end + close.len());
    Some(rest.len() - body.len() + end)
}

/// A character with its quotes; of a lifetime only the quote.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        // The escaped character itself may be a quote: `'\''`.
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            rest[from..]
                .find('\'')
                .map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The tokens without the items under `#[cfg(test)]`.
pub fn without_tests(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let here = &tokens[at..];
        if here.len() > MARK.len()
            && here
                .iter()
                .zip(MARK)
                .all(|(token, mark)| token.text == mark)
        {
            at += MARK.len() + item(&here[MARK.len()..]);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// The length of an item or a field: up to the first `;` or `,` outside brackets, or the brace
/// that closes its body. Where a `where` clause has a comma this is too short, so that too much is
/// looked at, never too little.
fn item(tokens: &[Token<'_>]) -> usize {
    let (mut brackets, mut angles) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => brackets += 1,
            // A bracket that closes without having been opened closes what the item stands in.
            ")" | "]" | "}" if brackets == 0 => return at,
            "}" if brackets == 1 => return at + 1,
            ")" | "]" | "}" => brackets -= 1,
            "<" => angles += 1,
            ">" => angles = angles.saturating_sub(1),
            ";" if brackets == 0 => return at + 1,
            "," if brackets == 0 && angles == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// A path of the source, and where it begins.
pub struct Named<'a> {
    /// The line of its first name, from 1.
    pub line: usize,
    /// How many modules of its own file it stands in.
    pub inner: usize,
    /// Its names, `*` included.
    pub names: Vec<&'a str>,
}

/// Every path of the source. `use a::{b, c::d}` gives `a::b` and
/// `a::c::d`; a call of the method `m` gives `.m`, as a path of its own.
pub fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        let method = at > 0 && tokens[at - 1].text == ".";
        if method && token.text == "elapsed" {
            let Token { line, inner, .. } = token;
            found.push(Named {
                line,
                inner,
                names: vec![".elapsed"],
            });
        }
        at = if token.is_word() && !method {
            path(tokens, at, &[], &mut found)
        } else {
            at + 1
        };
    }
    found
}

/// Reads one path that begins at `at`, behind the names of `before`; says where it ends.
fn path<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Named<'a>>,
) -> usize {
    let Token { line, inner, .. } = tokens[at];
    let mut names = before.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    loop {
        names.push(text(at));
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
        match tokens.get(at) {
            Some(token) if token.text == "{" => return group(tokens, at + 1, &names, found),
            Some(token) if token.is_word() || token.text == "*" => {}
            // A turbofish: what is in it is read as paths of their own.
            _ => break,
        }
    }
    found.push(Named { line, inner, names });
    at
}

/// Reads the members of a `use` group up to its brace.
fn group<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Named<'a>>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            // The new name says nothing about where it comes from.
            "as" => at += 2,
            _ if token.is_word() || token.text == "*" => at = path(tokens, at, before, found),
            _ => at += 1,
        }
    }
    at
}
