//! The lexer and cursor under every parser here. It reads the text in place, one token ahead, and never fails: what is
//! no token becomes a bad one, which the parser that meets it reports with its place. Parsers on top of it use loops,
//! never recursion, and what they allocate grows with the text alone, so that text from a stranger costs no more than
//! its length.

use std::fmt;

/// Why a text is not what it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}{excerpt}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong: ``expected `]`, found `}` ``.
    pub message: String,
    /// The line with a caret under the column, drawn below the message.
    pub excerpt: Excerpt,
}

/// A line of text with a mark under one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, or the part of it around the mark.
    pub line: String,
    /// How many characters stand before the mark.
    pub before: usize,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  | {}\n  | {:2$}^", self.line, "", self.before)
    }
}

/// How much of a line is drawn on either side of the mark.
const EXCERPT_CHARS: usize = 60;
/// How much of a token is repeated in a message.
const FOUND_CHARS: usize = 24;

/// What sort of token it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `conv2d`, `a0`: a letter or underscore, then also digits.
    Word,
    /// `42` or `0x2a`, without a sign.
    Int,
    /// `1.5`, `1e-7`, without a sign.
    Float,
    /// `"…"` with Rust's escapes, on one line.
    Text,
    /// A sigil and digits: `%7`, `$0`, `#3`.
    Id,
    /// Punctuation.
    Mark,
    /// Not a token, and why.
    Bad(&'static str),
    /// The end of the text.
    End,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    /// What sort it is.
    pub(crate) kind: Kind,
    /// As written.
    pub(crate) text: &'a str,
    /// Byte offset in the text.
    pub(crate) at: usize,
}

/// A text and how far it has been read.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    next: Token<'a>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, next: lex(text, 0) }
    }
    /// The token to come.
    pub(crate) fn peek(&self) -> Token<'a> {
        self.next
    }
    /// Byte offset of the token to come.
    pub(crate) fn at(&self) -> usize {
        self.next.at
    }
    /// Takes a token, whatever it is.
    pub(crate) fn bump(&mut self) -> Token<'a> {
        let token = self.next;
        self.next = lex(self.text, token.at + token.text.len());
        token
    }
    /// Whether the word or mark `text` comes next.
    pub(crate) fn sees(&self, text: &str) -> bool {
        matches!(self.next.kind, Kind::Word | Kind::Mark) && self.next.text == text
    }
    /// Takes the word or mark `text` if it comes next.
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let sees = self.sees(text);
        if sees {
            self.bump();
        }
        sees
    }
    /// Takes the word or mark `text`.
    pub(crate) fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if self.eat(text) { Ok(()) } else { Err(self.unexpected(&format!("`{text}`"))) }
    }
    /// Takes a token of `kind`; `what` names it in the message.
    pub(crate) fn take(&mut self, kind: Kind, what: &str) -> Result<Token<'a>, ParseError> {
        if self.next.kind == kind { Ok(self.bump()) } else { Err(self.unexpected(what)) }
    }
    /// Takes a word.
    pub(crate) fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        Ok(self.take(Kind::Word, what)?.text)
    }
    /// Takes an integer, with a sign if `T` has one.
    pub(crate) fn int<T: TryFrom<i128>>(&mut self, what: &str) -> Result<T, ParseError> {
        let at = self.at();
        let negative = self.eat("-");
        let digits = self.take(Kind::Int, what)?.text;
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        let value = magnitude.ok().map(|m| if negative { -i128::from(m) } else { i128::from(m) });
        value.and_then(|v| T::try_from(v).ok()).ok_or_else(|| {
            let sign = if negative { "-" } else { "" };
            self.error_at(at, format!("`{sign}{}` is out of range for {what}", shorten(digits)))
        })
    }
    /// Takes an id with this sigil.
    pub(crate) fn id(&mut self, sigil: char, what: &str) -> Result<u32, ParseError> {
        let token = self.next;
        let number = token.text.strip_prefix(sigil).filter(|_| token.kind == Kind::Id).and_then(|d| d.parse().ok());
        let number = number.ok_or_else(|| self.unexpected(what))?;
        self.bump();
        Ok(number)
    }
    /// The number of the word to come, if that is `prefix` and digits: `a3`.
    pub(crate) fn sees_numbered(&self, prefix: &str) -> Option<u32> {
        let digits = self.next.text.strip_prefix(prefix).filter(|_| self.next.kind == Kind::Word)?;
        digits.starts_with(|c: char| c.is_ascii_digit()).then(|| digits.parse().ok())?
    }
    /// Takes a word that is `prefix` and a number: `a3`.
    pub(crate) fn numbered<T: TryFrom<u32>>(&mut self, prefix: &str, what: &str) -> Result<T, ParseError> {
        let number = self.sees_numbered(prefix).and_then(|n| T::try_from(n).ok());
        let number = number.ok_or_else(|| self.unexpected(&format!("{what}, like `{prefix}0`")))?;
        self.bump();
        Ok(number)
    }
    /// Takes the word that is `prefix` and `count`: the next of things that are numbered from 0 without a gap.
    pub(crate) fn in_order(&mut self, prefix: &str, count: usize) -> Result<(), ParseError> {
        match self.sees_numbered(prefix) {
            Some(n) if n as usize == count => {
                self.bump();
                Ok(())
            }
            _ => Err(self.unexpected(&format!("`{prefix}{count}`, the next in order"))),
        }
    }
    /// Takes a quoted string and undoes its escapes.
    pub(crate) fn text(&mut self, what: &str) -> Result<String, ParseError> {
        let token = self.take(Kind::Text, what)?;
        let inside = &token.text[1..token.text.len() - 1];
        let mut out = String::with_capacity(inside.len());
        let mut rest = inside.char_indices();
        while let Some((i, c)) = rest.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            let escaped = match rest.next().map(|(_, c)| c) {
                Some('n') => Some('\n'),
                Some('r') => Some('\r'),
                Some('t') => Some('\t'),
                Some('0') => Some('\0'),
                Some(c @ ('\\' | '"' | '\'')) => Some(c),
                Some('u') => code_point(&mut rest),
                _ => None,
            };
            out.push(escaped.ok_or_else(|| self.error_at(token.at + 1 + i, "no such escape"))?);
        }
        Ok(out)
    }
    /// Takes `open`, items with commas between, `close`.
    pub(crate) fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }
    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), ParseError> {
        if self.next.kind == Kind::End { Ok(()) } else { Err(self.unexpected("the end of the text")) }
    }
    /// What is to come is not `what` was expected.
    pub(crate) fn unexpected(&self, what: &str) -> ParseError {
        let found = match self.next.kind {
            Kind::End => "the end of the text".to_string(),
            Kind::Bad(why) => format!("{why} `{}`", shorten(self.next.text)),
            _ => format!("`{}`", shorten(self.next.text)),
        };
        self.error_at(self.at(), format!("expected {what}, found {found}"))
    }
    /// A mistake at byte offset `at`.
    pub(crate) fn error_at(&self, at: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..at];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = before[start..].chars().count();
        let end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        let hidden = column.saturating_sub(EXCERPT_CHARS);
        let shown = self.text[start..end].chars().skip(hidden).take(2 * EXCERPT_CHARS);
        let line = shown.map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_string();
        ParseError {
            line: before.matches('\n').count() + 1,
            column: column + 1,
            message: message.into(),
            excerpt: Excerpt { line, before: column - hidden },
        }
    }
}

/// `{1f600}`, after `\u`.
fn code_point(rest: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, '{') = rest.next()? else { return None };
    let mut code = 0u32;
    for (i, (_, c)) in rest.by_ref().enumerate() {
        match c {
            '}' if i > 0 => return char::from_u32(code),
            _ if i < 6 => code = code * 16 + c.to_digit(16)?,
            _ => return None,
        }
    }
    None
}

pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.to_string(),
    }
}

/// The token at or after byte offset `at`, behind white space and comments.
fn lex(text: &str, mut at: usize) -> Token<'_> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if !trimmed.starts_with("//") {
            break;
        }
        at += trimmed.find('\n').unwrap_or(trimmed.len());
    }
    let (kind, len) = token(&text[at..]);
    Token { kind, text: &text[at..at + len], at }
}

const MARKS: [&str; 3] = ["..=", "..", "->"];

/// The sort and length of the token at the start of `text`.
fn token(text: &str) -> (Kind, usize) {
    let Some(first) = text.chars().next() else { return (Kind::End, 0) };
    let run = |from: usize, holds: fn(char) -> bool| text[from..].find(|c| !holds(c)).map_or(text.len(), |n| from + n);
    let digit = |c: char| c.is_ascii_digit();
    match first {
        'a'..='z' | 'A'..='Z' | '_' => (Kind::Word, run(0, |c| c.is_ascii_alphanumeric() || c == '_')),
        '0' if text[1..].starts_with('x') => match run(2, |c| c.is_ascii_hexdigit()) {
            2 => (Kind::Bad("a hexadecimal number without digits"), 2),
            end => (Kind::Int, end),
        },
        '0'..='9' => {
            let mut end = run(0, digit);
            let whole = end;
            if text[end..].strip_prefix('.').is_some_and(|t| t.starts_with(digit)) {
                end = run(end + 1, digit);
            }
            if let Some(exponent) = text[end..].strip_prefix('e') {
                let sign = usize::from(exponent.starts_with(['-', '+']));
                if exponent[sign..].starts_with(digit) {
                    end = run(end + 1 + sign, digit);
                }
            }
            (if end == whole { Kind::Int } else { Kind::Float }, end)
        }
        '"' => {
            let mut escaped = false;
            for (i, c) in text.char_indices().skip(1) {
                match c {
                    '\n' => return (Kind::Bad("an unfinished string"), i),
                    '"' if !escaped => return (Kind::Text, i + 1),
                    _ => escaped = c == '\\' && !escaped,
                }
            }
            (Kind::Bad("an unfinished string"), text.len())
        }
        '%' | '$' | '#' if text[1..].starts_with(digit) => (Kind::Id, run(1, digit)),
        _ => match MARKS.iter().find(|m| text.starts_with(**m)) {
            Some(mark) => (Kind::Mark, mark.len()),
            None if first.is_ascii_punctuation() => (Kind::Mark, 1),
            None => (Kind::Bad("the character"), first.len_utf8()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_into_tokens() {
        let mut cursor = Cursor::new("%9.1 1..=512 // a comment\n x-1e-7 \"a\\\"b\" 0x2a->$3");
        let mut tokens = Vec::new();
        while cursor.peek().kind != Kind::End {
            tokens.push(cursor.bump().text);
        }
        assert_eq!(tokens, ["%9", ".", "1", "1", "..=", "512", "x", "-", "1e-7", "\"a\\\"b\"", "0x2a", "->", "$3"]);
    }

    #[test]
    fn an_error_points_at_its_column() {
        let mut cursor = Cursor::new("a [\n\t1, 2}");
        cursor.bump();
        let error = cursor.list("[", "]", |c| c.int::<u64>("a number")).expect_err("the bracket is wrong");
        assert_eq!(error.to_string(), "line 2, column 6: expected `,` or `]`, found `}`\n  |  1, 2}\n  |      ^");
    }

    #[test]
    fn strings_undo_their_escapes() {
        for text in ["", "plain", "\"\\\n\r\t\0'", "\u{7f}\u{200b}é😀", "a // b"] {
            let quoted = format!("{text:?}");
            assert_eq!(Cursor::new(&quoted).text("a string").as_deref(), Ok(text));
        }
        assert!(Cursor::new(r#""\u{110000}""#).text("a string").is_err());
        assert!(Cursor::new(r#""\q""#).text("a string").is_err());
    }
}
