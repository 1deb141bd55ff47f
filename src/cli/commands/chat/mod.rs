//! `hornbook chat`: a conversation with a model, at a terminal or from a pipe.

mod chat_session;
mod command;
mod editor;
mod file;
mod input;

use crate::chat::{ChatTemplate, Conversation};
use crate::cli::INTERRUPTED;
use crate::cli::args::draft::DraftArgs;
use crate::cli::args::model::ModelArgs;
use crate::cli::args::sampling::SamplingArgs;
use crate::cli::output::screen::Screen;
use crate::cli::output::stdout::is_closed_pipe;
use crate::{Error, Hornbook, Result};
use chat_session::{ChatSession, Flow};
use clap::Args;
use editor::{Editor, ReadOutcome};
use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Chat with a model
///
/// At a terminal, Ctrl-C stops an answer, Ctrl-D ends the conversation, and /help lists the commands. Through
/// a pipe, every line is a message or a command, and only the answers are written to standard output. A
/// message of several lines is enclosed in """, or has a backslash at the end of every line but the last.
///
/// The chat template is read from the model's folder (chat_template.jinja or tokenizer_config.json), stop
/// strings from generation_config.json. A model without a template continues a transcript. When the context
/// is full, the oldest messages are dropped, and a note says how many.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook chat                                          the built-in model
  hornbook chat --system \"A wise owl answers.\" --seed 7  reproducible answers
  hornbook chat --model gpt2 --temperature 0.6           from the local cache
  hornbook chat --adapter my-adapter                     with a LoRA adapter
  printf 'Who are you?\\nAnd where do you live?\\n' | hornbook chat
  printf 'Who are you?\\n/save talk.json\\n' | hornbook chat
  printf 'And then?\\n' | hornbook chat --load talk.json
  echo '{% for m in messages %}{{ m.content }} {% endfor %}' > chat.jinja
  hornbook chat --template chat.jinja                    with another template")]
pub struct Chat {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    draft: DraftArgs,

    /// System prompt
    #[arg(long, value_name = "TEXT", help_heading = "Conversation")]
    system: Option<String>,

    /// Continue a conversation saved with /save
    #[arg(long, value_name = "FILE", help_heading = "Conversation")]
    load: Option<PathBuf>,

    /// Jinja chat template, as in Hugging Face tokenizers [default: the model's own, or a transcript]
    #[arg(long, value_name = "FILE", help_heading = "Conversation")]
    template: Option<PathBuf>,

    /// Do not save the input history
    #[arg(long, help_heading = "Conversation")]
    no_history: bool,

    #[command(flatten)]
    sampling: SamplingArgs,
}

impl Chat {
    pub(super) fn run(self) -> Result<ExitCode> {
        for (name, file) in [("--template", &self.template), ("--load", &self.load)] {
            if file.as_deref() == Some(Path::new("-")) {
                return Err(Error::Parameter {
                    name: name.into(),
                    found: "-".into(),
                    expected: "a file, as messages are read from standard input".into(),
                });
            }
        }
        // Files are read first, so that errors come before the model is loaded.
        let template = self.template.as_deref().map(ChatTemplate::open).transpose()?;
        let messages = self.load.as_deref().map(file::load).transpose()?;
        let hornbook = self.draft.apply(self.model.open()?)?;
        let template = template.map_or_else(|| ChatTemplate::for_model(&hornbook), Ok)?;
        let options = self.sampling.options(&hornbook, self.model.execution.kv_precision);
        let mut conversation = Conversation::new(&hornbook, template, options)?;
        if let Some(messages) = messages {
            let file = self.load.unwrap_or_default();
            let invalid = |error| Error::Message(format!("{}: {error}", file.display()));
            conversation.set_messages(messages).map_err(invalid)?;
        }
        if self.system.is_some() {
            conversation.set_system(self.system.as_deref())?;
        }
        let outcome = match stdin().is_terminal() && stdout().is_terminal() {
            true => run_interactive(&hornbook, conversation, !self.no_history),
            false => run_piped(conversation),
        };
        match outcome {
            Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS), // as for `| head`
            outcome => outcome.map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Reads messages and commands from a pipe, until the first error or the end.
fn run_piped(conversation: Conversation) -> Result<()> {
    let plain = Screen { color: false, ..Screen::new(None)? };
    let mut session = ChatSession::new(conversation, plain, Arc::default(), false);
    for input in input::read_all(stdin().lock()) {
        let (line, text) = input?;
        match session.handle(&text) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Quit) => break,
            Err(error) if is_closed_pipe(&error) => return Err(error),
            Err(error) => return Err(Error::Message(format!("standard input: line {line}: {error}"))),
        }
    }
    Ok(())
}

/// Runs a conversation at a terminal, with line editing and answers that Ctrl-C stops.
fn run_interactive(hornbook: &Hornbook, conversation: Conversation, history: bool) -> Result<()> {
    let screen = Screen::new(None)?;
    let (stop, at_prompt) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (stop_flag, prompt_flag) = (Arc::clone(&stop), Arc::clone(&at_prompt));
    // At the prompt the line editor reads Ctrl-C as a key, so a signal there is from elsewhere and exits. If
    // no handler can be set, every signal exits.
    let _ = ctrlc::set_handler(move || match prompt_flag.load(Ordering::SeqCst) {
        true => std::process::exit(INTERRUPTED.into()),
        false => stop_flag.store(true, Ordering::SeqCst),
    });
    print_greeting(hornbook, &conversation, screen);
    let mut editor = Editor::new(screen, history)?;
    let mut session = ChatSession::new(conversation, screen, stop, true);
    loop {
        at_prompt.store(true, Ordering::SeqCst);
        let outcome = editor.read();
        at_prompt.store(false, Ordering::SeqCst);
        match outcome? {
            ReadOutcome::EndOfInput => return Ok(()),
            ReadOutcome::Interrupted => {}
            ReadOutcome::Text(text) => match session.handle(&text) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Quit) => return Ok(()),
                Err(error) if is_closed_pipe(&error) => return Err(error),
                Err(error) => stderr_line!("{error}\n"),
            },
        }
    }
}

/// Prints the model's name, its context and how to get help.
fn print_greeting(hornbook: &Hornbook, conversation: &Conversation, screen: Screen) {
    let (_, n_positions) = conversation.context_usage();
    let template = match conversation.template().is_built_in() {
        true => " It has no chat template, so it continues a transcript.",
        false => "",
    };
    let name = hornbook.name();
    let greeting =
        format!("{name}, with a context of {n_positions} tokens.{template} /help lists the commands.");
    stderr_text!("{}", screen.note(&greeting));
    if !conversation.messages().is_empty() {
        stderr_text!("{}", screen.note(&chat_session::loaded_note(conversation)));
    }
    stderr_line!();
}
