//! Templates in the Jinja of transformers, rewritten to that of minijinja.
//!
//! | template | rewritten |
//! |---|---|
//! | `{% generation %}…{% endgeneration %}` | the scope that it is, its text passed through [`GENERATION`] |
//! | `'…' % arguments` | `'…'`, filtered by [`PRINTF`] |
//! | a list, map or tuple in an expression | the same, passed through [`BOUNDED`] |
//! | `{% set namespace.name = value %}` | the same, the value passed through [`BOUNDED`] |
//!
//! All edits are made within a line, so that errors name the lines of the template.

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// The filter that stands for `%` with a string on its left.
pub(super) const PRINTF: &str = "__printf";

/// The filter of what a template says that the model generates.
pub(super) const GENERATION: &str = "__generation";

/// The function that checks the size of its argument.
pub(super) const BOUNDED: &str = "__bounded";

/// The most tokens of an expression or statement, of which each may be a level for the parser's recursion.
const MAX_TOKENS: usize = 1000;

/// The most `elif` of a template, each of which is a level too.
const MAX_ELIFS: usize = 500;

/// Words after which a value follows.
const KEYWORDS: [&str; 8] = ["in", "not", "and", "or", "if", "elif", "else", "is"];

type TagToken<'t> = (Token<'t>, Span);

/// Counts a template's tokens and rewrites it.
///
/// # Errors
/// [`ErrorKind::SyntaxError`] for text that is no Jinja, or nested too deeply to be parsed.
pub(super) fn rewrite(text: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    let mut edits = vec![];
    let (mut tag, mut elifs) = (vec![], 0);
    for token in tokenize(text, false, syntax.clone()) {
        let (token, span) = token?;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => tag.clear(),
            Token::VariableEnd | Token::BlockEnd => {
                elifs += usize::from(matches!(tag.first(), Some((Token::Ident("elif"), _))));
                edit_tag(&tag, matches!(token, Token::BlockEnd), &mut edits);
                tag.clear();
            }
            token => tag.push((token, span)),
        }
        if tag.len() > MAX_TOKENS || elifs > MAX_ELIFS {
            return Err(Error::new(
                ErrorKind::SyntaxError,
                format!(
                    "line {}: found an expression nested too deeply or too long, \
                     expected at most {MAX_TOKENS} tokens and {MAX_ELIFS} elif",
                    span.start_line
                ),
            ));
        }
    }
    // Edits at one place keep the order in which they were found.
    edits.sort_by_key(|&(range, _): &((usize, usize), String)| range.0);
    let (mut rewritten, mut end) = (String::with_capacity(text.len()), 0);
    for ((from, to), replacement) in edits {
        rewritten.push_str(&text[end..from]);
        rewritten.push_str(&replacement);
        end = to;
    }
    rewritten.push_str(&text[end..]);
    Ok(rewritten)
}

type Edits = Vec<((usize, usize), String)>;

fn start(token: &TagToken) -> usize {
    token.1.start_offset as usize
}

fn end(token: &TagToken) -> usize {
    token.1.end_offset as usize
}

/// Edits an expression or statement.
fn edit_tag(tag: &[TagToken], is_block: bool, edits: &mut Edits) {
    let word = match tag.first() {
        Some((Token::Ident(word), _)) if is_block => Some(*word),
        _ => None,
    };
    let mut from = usize::from(word.is_some());
    match word {
        Some("generation") => {
            let replacement = format!("with %}}{{% filter {GENERATION}(__marks_generation)");
            edits.push(((start(&tag[0]), end(&tag[0])), replacement));
        }
        Some("endgeneration") => {
            edits.push(((start(&tag[0]), end(&tag[0])), "endfilter %}{% endwith".into()));
        }
        // Targets of assignments are no values.
        Some("for") => from = position(tag, |token| matches!(token, Token::Ident("in"))),
        Some("set" | "with") => from = position(tag, |token| matches!(token, Token::Assign)),
        _ => (),
    }
    if word == Some("set") && matches!(tag.get(2), Some((Token::Dot, _))) && from < tag.len() {
        wrap(tag, from + 1, tag.len(), edits);
    }
    for i in from..tag.len() {
        match tag[i].0 {
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen if !follows_value(tag, i) => {
                wrap(tag, i, group_end(tag, i), edits);
            }
            Token::Mod if i > 0 && matches!(tag[i - 1].0, Token::Str(_) | Token::String(_)) => {
                let operand = operand_end(tag, i + 1);
                if operand > i + 1 {
                    edits.push(((start(&tag[i]), end(&tag[i])), format!("|{PRINTF}(")));
                    edits.push(((end(&tag[operand - 1]), end(&tag[operand - 1])), ")".into()));
                }
            }
            _ => (),
        }
    }
}

/// Passes the tokens from `from` up to `to` through [`BOUNDED`].
fn wrap(tag: &[TagToken], from: usize, to: usize, edits: &mut Edits) {
    if from < to {
        edits.push(((start(&tag[from]), start(&tag[from])), format!(" {BOUNDED}((")));
        edits.push(((end(&tag[to - 1]), end(&tag[to - 1])), "))".into()));
    }
}

fn position(tag: &[TagToken], is_wanted: impl Fn(&Token) -> bool) -> usize {
    tag.iter().position(|(token, _)| is_wanted(token)).unwrap_or(tag.len())
}

/// Whether the bracket at `i` is a subscript or a call of the value before it.
fn follows_value(tag: &[TagToken], i: usize) -> bool {
    let Some((before, _)) = i.checked_sub(1).map(|before| &tag[before]) else { return false };
    match before {
        Token::Ident(word) => {
            // `x is in [1]` tests membership; an attribute may have a keyword's name.
            let is_attribute = i > 1 && matches!(tag[i - 2].0, Token::Dot);
            is_attribute || !KEYWORDS.contains(word)
        }
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => true,
        Token::BracketClose | Token::BraceClose | Token::ParenClose => true,
        _ => false,
    }
}

/// The end of the bracketed group that begins at `i`.
fn group_end(tag: &[TagToken], i: usize) -> usize {
    let mut depth = 0;
    for (j, (token, _)) in tag.iter().enumerate().skip(i) {
        match token {
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen => depth += 1,
            Token::BracketClose | Token::BraceClose | Token::ParenClose => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return j + 1;
        }
    }
    // Unbalanced brackets are the parser's to report.
    i
}

/// The end of the operand that begins at `i`: a value with its subscripts, calls and filters.
fn operand_end(tag: &[TagToken], i: usize) -> usize {
    let is_sign = |j: usize| matches!(tag.get(j), Some((Token::Minus, _)));
    let mut j = i;
    while is_sign(j) {
        j += 1;
    }
    let mut has_value = false;
    while let Some((token, _)) = tag.get(j) {
        let next = match token {
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen => group_end(tag, j),
            Token::Dot | Token::Pipe if has_value => j + 2,
            _ if has_value => break,
            _ => j + 1,
        };
        if next == j {
            break;
        }
        (j, has_value) = (next, true);
    }
    j.min(tag.len())
}
