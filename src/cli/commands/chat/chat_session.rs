//! The chat loop's handling of one input: an answer or a command.

use super::command::{self, Command};
use super::file;
use super::input::{self, Input};
use crate::Result;
use crate::chat::{Answer, AnswerStats, Conversation};
use crate::cli::output::screen::{Screen, terminal_width};
use crate::cli::output::stdout::write_error;
use crate::cli::output::word_wrap::WordWrap;
use crate::generate::FinishReason;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the conversation continues after an input.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Quit,
}

/// A conversation and its output.
pub struct ChatSession<'h> {
    conversation: Conversation<'h>,
    screen: Screen,
    /// Set to end the answer being generated.
    stop: Arc<AtomicBool>,
    /// Whether to print an empty line after each answer.
    blank_lines: bool,
    /// Number of dropped messages reported so far.
    reported_dropped: usize,
}

impl<'h> ChatSession<'h> {
    pub fn new(
        conversation: Conversation<'h>,
        screen: Screen,
        stop: Arc<AtomicBool>,
        blank_lines: bool,
    ) -> Self {
        Self { conversation, screen, stop, blank_lines, reported_dropped: 0 }
    }

    /// Handles one input: prints the answer to a message, or executes a command.
    ///
    /// # Errors
    /// One-line errors of the message or command; the conversation is then unchanged.
    pub fn handle(&mut self, text: &str) -> Result<Flow> {
        let command = match input::parse(text) {
            Input::Empty => return Ok(Flow::Continue),
            Input::Message(text) => {
                let answer = self.conversation.send(text)?;
                print_answer(answer, self.screen, &self.stop, self.blank_lines, &mut self.reported_dropped)?;
                return Ok(Flow::Continue);
            }
            Input::Command(line) => Command::parse(&line)?,
        };
        let options = &mut self.conversation.options;
        let note = match command {
            Command::Quit => return Ok(Flow::Quit),
            Command::Retry => {
                let answer = self.conversation.retry()?;
                print_answer(answer, self.screen, &self.stop, self.blank_lines, &mut self.reported_dropped)?;
                return Ok(Flow::Continue);
            }
            Command::Help => command::help(),
            Command::Set(None) => command::list_settings(options),
            Command::Set(Some((name, value))) => command::set_setting(options, &name, value.as_deref())?,
            Command::Reset => {
                self.conversation.reset();
                self.reported_dropped = 0;
                "conversation cleared".into()
            }
            Command::System(None) => match self.conversation.system() {
                Some(text) => text.into(),
                None => "no system message".into(),
            },
            Command::System(Some(text)) => {
                self.conversation.set_system(Some(text.as_str()).filter(|text| !text.is_empty()))?;
                "system message set".into()
            }
            Command::Save(path) => {
                let messages = self.conversation.messages();
                file::save(&path, self.conversation.model(), messages)?;
                format!("{} saved to {}", count_messages(messages.len()), path.display())
            }
            Command::Load(path) => {
                self.conversation.set_messages(file::load(&path)?)?;
                self.reported_dropped = 0;
                loaded_note(&self.conversation)
            }
            Command::Stats => stats(&self.conversation),
        };
        self.print_note(note.trim_end());
        Ok(Flow::Continue)
    }

    /// Prints a note to standard error, apart from the answers.
    fn print_note(&self, note: &str) {
        let lines: Vec<String> = note.lines().map(|line| self.screen.dim(line)).collect();
        stderr_line!("{}{}", lines.join("\n"), if self.blank_lines { "\n" } else { "" });
    }
}

/// Prints an answer as it is generated, until it ends or is stopped.
fn print_answer(
    mut answer: Answer,
    screen: Screen,
    stop: &AtomicBool,
    blank_lines: bool,
    reported_dropped: &mut usize,
) -> Result<()> {
    stop.store(false, Ordering::SeqCst);
    if answer.dropped_messages() > *reported_dropped {
        let messages = count_messages(answer.dropped_messages());
        stderr_line!("{}", screen.dim(&format!("the context is full: dropped the oldest {messages}")));
    }
    *reported_dropped = answer.dropped_messages();
    let mut out = stdout().lock();
    let mut wrap = terminal_width().map(WordWrap::new);
    let mut write = |text: &str| {
        let text = wrap.as_mut().map_or_else(|| text.into(), |wrap| wrap.push(text));
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(write_error)
    };
    while let Some(text) = answer.next() {
        write(&text?)?;
        if stop.load(Ordering::SeqCst) {
            write(&answer.finish())?;
            break;
        }
    }
    write(if blank_lines { "\n\n" } else { "\n" })
}

/// A note on the messages of a loaded conversation.
pub fn loaded_note(conversation: &Conversation) -> String {
    format!("{} loaded; type a message, or /retry", count_messages(conversation.messages().len()))
}

fn count_messages(n: usize) -> String {
    format!("{n} {}", if n == 1 { "message" } else { "messages" })
}

/// Statistics of the last answer, and the context usage.
fn stats(conversation: &Conversation) -> String {
    let (used, n_positions) = conversation.context_usage();
    let context =
        format!("context  {used} of {n_positions} tokens, {}", count_messages(conversation.messages().len()));
    let seed = format!("seed     {}", conversation.options.sampling.seed);
    let Some(stats) = conversation.last_stats() else {
        return format!("{context}\n{seed}\nno answer yet");
    };
    let AnswerStats { prompt_tokens, reused_tokens, prefilled_tokens, tokens, finish_reason, .. } = stats;
    let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!(", {rate:.1} tokens/s"));
    let end = match finish_reason {
        Some(FinishReason::Stop) => "complete",
        Some(FinishReason::Length) => "cut off by max_tokens or the context",
        None => "stopped by Ctrl-C",
    };
    let dropped = match stats.dropped_messages {
        0 => String::new(),
        n => format!(", the oldest {} dropped", count_messages(n)),
    };
    format!(
        "prompt   {prompt_tokens} tokens: {reused_tokens} cached, {prefilled_tokens} computed{}\n\
         answer   {} tokens{}, {end}\n{context}{dropped}\n{seed}",
        rate(stats.prefill_rate()),
        tokens.len(),
        rate(stats.decode_rate()),
    )
}
