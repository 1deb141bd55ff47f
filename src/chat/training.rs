//! A finished conversation as a training text: which parts of it the assistant wrote.
//!
//! A template may say so itself, with `{% generation %}…{% endgeneration %}`. If it does not, it is found by
//! rendering: an answer begins where the prompt for it ends, and reaches to where the conversation ends that
//! it is the last message of. It ends earlier where generation would stop: with a stop string or the end
//! token.
//!
//! ```text
//! render(messages before it, with generation prompt)   <user>Hi</s><assistant>
//! render(messages up to it)                            <user>Hi</s><assistant>Hello.</s>
//! render(all messages)                                 <user>Hi</s><assistant>Hello.</s><user>Bye</s>…
//!                                                                             ~~~~~~~~~~
//! ```
//!
//! Each rendering must begin the next. White space at its end, and an end token that only the last message
//! has, may differ. A template that rewrites earlier messages, as those that drop an earlier answer's
//! thoughts, is an error: what the model would be trained to continue is not what it is given later.

use super::jinja::GENERATION_MARKS;
use super::template::{ChatMessage, ChatTemplate, Rendering};
use crate::{Error, Result};
use std::ops::Range;

/// The role whose messages the model writes.
const ASSISTANT: &str = "assistant";

/// A part of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The text, in which special tokens appear by name.
    pub text: String,
    /// Whether the assistant wrote it.
    pub is_answer: bool,
}

impl ChatTemplate {
    /// Renders a finished conversation, cut where the assistant begins and ends to write. What follows its
    /// last answer is left out.
    ///
    /// # Errors
    /// [`Error::Parameter`] for messages without an answer, and for a role unknown to the built-in template;
    /// [`Error::ChatTemplate`] if the template rejects the messages, or rewrites earlier ones.
    pub fn spans(&self, messages: &[ChatMessage], bos_token: &str, eos_token: &str) -> Result<Vec<Span>> {
        let Some(last) = messages.iter().rposition(is_answer) else {
            return Err(Error::Parameter {
                name: "messages".into(),
                found: "no message of the assistant".into(),
                expected: "at least one, to learn from".into(),
            });
        };
        let messages = &messages[..=last];
        let whole = Rendering {
            add_generation_prompt: false,
            marks_generation: true,
            ..Rendering::prompt(bos_token, eos_token)
        };
        let rendered = self.render(messages, whole)?;
        if rendered.contains(GENERATION_MARKS[0]) {
            return Ok(marked(&rendered));
        }
        let answers = self.answers(messages, &rendered, whole)?;
        let (mut spans, mut end) = (vec![], 0);
        for answer in answers {
            spans.push(Span { text: rendered[end..answer.start].into(), is_answer: false });
            spans.push(Span { text: rendered[answer.clone()].into(), is_answer: true });
            end = answer.end;
        }
        Ok(spans)
    }

    /// The places of the answers in the whole text.
    fn answers(
        &self,
        messages: &[ChatMessage],
        whole: &str,
        rendering: Rendering,
    ) -> Result<Vec<Range<usize>>> {
        let mut answers: Vec<Range<usize>> = vec![];
        for (i, _) in messages.iter().enumerate().filter(|(_, message)| is_answer(message)) {
            let changed = |what: &str| Error::ChatTemplate {
                problem: format!(
                    "found another text for {what} messages[{i}] once further messages follow, expected the \
                     same, or {{% generation %}} around what the model writes"
                ),
            };
            let prompt = self.render(&messages[..i], Rendering { add_generation_prompt: true, ..rendering });
            let start = common_len(&prompt?, whole, "").ok_or_else(|| changed("the prompt of"))?;
            let start = start.max(answers.last().map_or(0, |answer| answer.end));
            let known = match i + 1 == messages.len() {
                true => whole,
                false => &self.render(&messages[..=i], rendering)?,
            };
            let end = match self.stop_end(whole, start, known.len()) {
                Some(end) => end,
                None => {
                    let end = common_len(known, whole, rendering.eos_token);
                    let end = end.filter(|&end| end >= start).ok_or_else(|| changed("messages up to"))?;
                    // Of an end token, nothing that the template writes after it.
                    let eos = Some(rendering.eos_token).filter(|eos| !eos.is_empty());
                    let found = eos.and_then(|eos| Some(start + whole[start..end].find(eos)? + eos.len()));
                    found.unwrap_or(end)
                }
            };
            answers.push(start..end);
        }
        Ok(answers)
    }

    /// The end of the first stop string that begins between `start` and `until`.
    fn stop_end(&self, whole: &str, start: usize, until: usize) -> Option<usize> {
        let found = |stop: &String| Some(start + whole[start..].find(stop)?).map(|at| (at, at + stop.len()));
        let first = self.stop().iter().filter_map(found).min()?;
        (first.0 <= until).then_some(first.1)
    }
}

fn is_answer(message: &ChatMessage) -> bool {
    message.role == ASSISTANT
}

/// The length of `part` if `whole` begins with it, or does without its white space or `eos` at the end.
fn common_len(part: &str, whole: &str, eos: &str) -> Option<usize> {
    let trimmed = part.trim_end();
    let without_eos = trimmed.strip_suffix(eos).unwrap_or(trimmed).trim_end();
    [part, trimmed, without_eos].into_iter().find(|part| whole.starts_with(part)).map(str::len)
}

/// The spans of a text whose template marks the answers.
fn marked(rendered: &str) -> Vec<Span> {
    let mut is_answer = false;
    let mut spans: Vec<Span> = vec![];
    for text in rendered.split_inclusive(GENERATION_MARKS) {
        spans.push(Span { text: text.trim_end_matches(GENERATION_MARKS).into(), is_answer });
        is_answer = text.ends_with(GENERATION_MARKS[0]);
    }
    let end = spans.iter().rposition(|span| span.is_answer).map_or(0, |last| last + 1);
    spans.truncate(end);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn conversation(messages: &[(&str, &str)]) -> Vec<ChatMessage> {
        messages.iter().map(|&(role, content)| ChatMessage::new(role, content)).collect()
    }

    /// The text with brackets around the answers.
    fn bracketed(template: &ChatTemplate, messages: &[(&str, &str)]) -> Result<String> {
        let spans = template.spans(&conversation(messages), "<s>", "</s>")?;
        let shown = |span: Span| if span.is_answer { format!("[{}]", span.text) } else { span.text };
        Ok(spans.into_iter().map(shown).collect())
    }

    fn parse(text: &str) -> ChatTemplate {
        ChatTemplate::parse(Path::new("own.jinja"), text).unwrap()
    }

    const TURNS: [(&str, &str); 5] =
        [("user", "Hi"), ("assistant", " Hello. "), ("user", "Who?"), ("assistant", "I."), ("user", "Bye")];

    #[test]
    fn answers_of_built_in_transcript_reach_to_next_speaker() {
        let text = bracketed(&ChatTemplate::transcript().unwrap(), &TURNS).unwrap();
        let text = text.split_once("you?\n").unwrap().1;
        assert_eq!(text, "User: Hi\nAssistant:[ Hello.\nUser:] Who?\nAssistant:[ I.\nAssistant:]");
    }

    #[test]
    fn answers_reach_to_end_token() {
        let text = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>\n{% endfor %}\
                    {% if add_generation_prompt %}<assistant>{% endif %}";
        let text = bracketed(&parse(text), &TURNS).unwrap();
        assert_eq!(text, "<user>Hi</s>\n<assistant>[Hello.</s>]\n<user>Who?</s>\n<assistant>[I.</s>]");
    }

    #[test]
    fn template_may_trim_its_end_and_end_the_last_message_otherwise() {
        let text = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\
                    {{ eos_token if loop.last and m.role == 'assistant' else '\\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: \\n' }}{% endif %}";
        let text = bracketed(&parse(text), &TURNS).unwrap();
        assert_eq!(text, "user: Hi\nassistant:[ Hello.]\nuser: Who?\nassistant:[ I.</s>]");
    }

    #[test]
    fn generation_tag_marks_answers() {
        let text = "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'A: ' }}\
                    {%- generation %}{{ m.content }};{% endgeneration %}{% else %}U: {{ m.content }};\
                    {%- endif %}{% endfor %}{% if add_generation_prompt %}something else{% endif %}";
        let text = bracketed(&parse(text), &TURNS).unwrap();
        assert_eq!(text, "U: Hi;A: [ Hello. ;]U: Who?;A: [I.;]");
    }

    #[test]
    fn template_that_rewrites_earlier_messages_is_error() {
        let thoughts = "{% for m in messages %}<{{ m.role }}>\
                        {{ 'hm. ' if loop.last and m.role == 'assistant' }}{{ m.content }}{% endfor %}\
                        {% if add_generation_prompt %}<assistant>{% endif %}";
        let error = bracketed(&parse(thoughts), &TURNS).unwrap_err().to_string();
        assert!(
            error.starts_with("chat template: found another text for messages up to messages[1]"),
            "{error}"
        );
        let prompt = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
                      {% if add_generation_prompt %}<assistant><think>{% endif %}";
        let error = bracketed(&parse(prompt), &TURNS).unwrap_err().to_string();
        assert!(error.contains("another text for the prompt of messages[1]"), "{error}");
        let error = bracketed(&parse("{{ messages }}"), &TURNS[..1]).unwrap_err().to_string();
        assert_eq!(
            error,
            "messages: found no message of the assistant, expected at least one, to learn from"
        );
    }

    /// Every published template that accepts the conversation and does not rewrite it.
    #[test]
    fn published_templates_have_answers_in_their_places() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat_templates"));
        let (mut found, mut refused) = (0, vec![]);
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "jinja") {
                continue;
            }
            let name = path.file_stem().unwrap().display().to_string();
            match bracketed(&ChatTemplate::open(&path).unwrap(), &TURNS) {
                Ok(text) => {
                    found += 1;
                    let answers: Vec<&str> =
                        text.split('[').skip(1).filter_map(|rest| Some(rest.split_once(']')?.0)).collect();
                    let is_answer = |content: &str| answers.iter().any(|text| text.contains(content));
                    assert!(is_answer("Hello.") && is_answer("I."), "{name}: {text}");
                    assert!(!is_answer("Hi") && !is_answer("Who?"), "{name}: {text}");
                }
                Err(error) => refused.push(format!("{name}: {error}")),
            }
        }
        assert!(found > 18, "{refused:#?}");
    }
}
