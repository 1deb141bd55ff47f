//! What becomes of every line: an answer, or what a command asks for.

use super::command::{self, Command};
use super::file;
use super::input::{self, Input};
use crate::Result;
use crate::chat::{Answer, AnswerStats, Conversation};
use crate::cli::screen::Screen;
use crate::cli::write_error;
use crate::generate::FinishReason;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether there is more to come.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    More,
    End,
}

/// A conversation, and where it is shown.
pub struct ChatSession<'h> {
    conversation: Conversation<'h>,
    screen: Screen,
    /// Set by whoever wants an answer to end.
    stop: Arc<AtomicBool>,
    /// An empty line between two turns.
    spaced: bool,
    /// The oldest turns that it was said are left out.
    dropped: usize,
}

impl<'h> ChatSession<'h> {
    pub fn new(conversation: Conversation<'h>, screen: Screen, stop: Arc<AtomicBool>, spaced: bool) -> Self {
        Self { conversation, screen, stop, spaced, dropped: 0 }
    }

    /// Does what a text asks for.
    ///
    /// # Errors
    /// What cannot be done, in one line; the conversation is then as it was.
    pub fn take(&mut self, text: &str) -> Result<Next> {
        let command = match input::read(text) {
            Input::Nothing => return Ok(Next::More),
            Input::Message(text) => {
                let answer = self.conversation.send(text)?;
                show(answer, self.screen, &self.stop, self.spaced, &mut self.dropped)?;
                return Ok(Next::More);
            }
            Input::Command(line) => Command::parse(&line)?,
        };
        let options = &mut self.conversation.options;
        let said = match command {
            Command::Quit => return Ok(Next::End),
            Command::Retry => {
                let answer = self.conversation.retry()?;
                show(answer, self.screen, &self.stop, self.spaced, &mut self.dropped)?;
                return Ok(Next::More);
            }
            Command::Help => command::help(),
            Command::Set(None) => command::shown(options),
            Command::Set(Some((name, value))) => command::set(options, &name, value.as_deref())?,
            Command::Reset => {
                self.conversation.reset();
                self.dropped = 0;
                "all is forgotten".into()
            }
            Command::System(None) => match self.conversation.system() {
                Some(text) => text.into(),
                None => "there is no system message".into(),
            },
            Command::System(Some(text)) => {
                self.conversation.set_system(Some(text.as_str()).filter(|text| !text.is_empty()))?;
                "the system message has changed".into()
            }
            Command::Save(path) => {
                let turns = self.conversation.messages();
                file::save(&path, self.conversation.model(), turns)?;
                format!("{} in {}", turns_in_words(turns.len()), path.display())
            }
            Command::Load(path) => {
                self.conversation.set_messages(file::load(&path)?)?;
                self.dropped = 0;
                so_far(&self.conversation)
            }
            Command::Stats => stats(&self.conversation),
        };
        self.tell(said.trim_end());
        Ok(Next::More)
    }

    /// A remark, apart from the answers.
    fn tell(&self, remark: &str) {
        let lines: Vec<String> = remark.lines().map(|line| self.screen.dim(line)).collect();
        eprintln!("{}{}", lines.join("\n"), if self.spaced { "\n" } else { "" });
    }
}

/// Shows an answer as it comes, until it has ended or is to end.
fn show(
    mut answer: Answer,
    screen: Screen,
    stop: &AtomicBool,
    spaced: bool,
    dropped: &mut usize,
) -> Result<()> {
    stop.store(false, Ordering::SeqCst);
    if answer.dropped_messages() > *dropped {
        let turns = turns_in_words(answer.dropped_messages());
        eprintln!("{}", screen.dim(&format!("the context is full: the oldest {turns} are left out")));
    }
    *dropped = answer.dropped_messages();
    let mut out = stdout().lock();
    let mut write =
        |text: &str| out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(write_error);
    while let Some(piece) = answer.next() {
        write(&piece?)?;
        if stop.load(Ordering::SeqCst) {
            write(&answer.finish())?;
            break;
        }
    }
    write(if spaced { "\n\n" } else { "\n" })
}

/// How much of a conversation there is already.
pub fn so_far(conversation: &Conversation) -> String {
    format!("{} so far; say something, or /retry", turns_in_words(conversation.messages().len()))
}

fn turns_in_words(turns: usize) -> String {
    format!("{turns} {}", if turns == 1 { "turn" } else { "turns" })
}

/// What the last answer cost, and how full the context is.
fn stats(conversation: &Conversation) -> String {
    let (used, n_positions) = conversation.context_usage();
    let context =
        format!("context  {used} of {n_positions} tokens, {}", turns_in_words(conversation.messages().len()));
    let seed = format!("seed     {}", conversation.options.sampling.seed);
    let Some(cost) = conversation.last_stats() else {
        return format!("{context}\n{seed}\nnothing was answered yet");
    };
    let AnswerStats { prompt_tokens, reused_tokens, prefilled_tokens, tokens, finish_reason, .. } = cost;
    let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!(", {rate:.1} tokens/s"));
    let end = match finish_reason {
        Some(FinishReason::Stop) => "ended by itself",
        Some(FinishReason::Length) => "cut at max_tokens or the context's end",
        None => "ended by Ctrl-C",
    };
    let left_out = match cost.dropped_messages {
        0 => String::new(),
        turns => format!(", the oldest {turns} left out"),
    };
    format!(
        "prompt   {prompt_tokens} tokens: {reused_tokens} reused from the cache, {prefilled_tokens} read{}\n\
         answer   {} tokens{}, {end}\n{context}{left_out}\n{seed}",
        rate(cost.prefill_rate()),
        tokens.len(),
        rate(cost.decode_rate()),
    )
}
