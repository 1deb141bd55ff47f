//! What was said, and the keys and values of what the model has read of it.

use super::{Answer, AnswerStats, ChatMessage, ChatTemplate};
use crate::generate::ContextPolicy;
use crate::model::{Session, common_prefix_len};
use crate::{Error, Hornbook, Options, Result};

/// The share of the context that an answer is to find free, where it may be that long.
const SHARE_OF_ANSWER: usize = 4;
/// The share of the context that is left out at once where it is full. What is left out moves all that stays, which has
/// to be read again; so much at a time, and the turns after it cost only what is new of them.
const SHARE_LEFT_OUT: usize = 3;

/// A conversation with a model.
///
/// An answer follows from what was said, the options and the seed alone: neither from what had been read before nor from
/// the way there. So a conversation that was saved and taken up again goes on as it would have.
pub struct Conversation<'h> {
    pub(super) hornbook: &'h Hornbook,
    template: ChatTemplate,
    /// How to answer.
    pub options: Options,
    turns: Vec<ChatMessage>,
    pub(super) session: Session<'h>,
    /// The tokens whose keys and values the session holds.
    pub(super) read: Vec<u32>,
    cost: Option<AnswerStats>,
}

impl<'h> Conversation<'h> {
    /// One in which nothing was said yet.
    ///
    /// # Errors
    /// [`Error::Message`] for a model without a tokenizer, [`Error::Parameter`] for options out of range.
    pub fn new(hornbook: &'h Hornbook, template: ChatTemplate, options: Options) -> Result<Self> {
        if hornbook.try_tokenizer().is_none() {
            return Err(Error::Message(format!(
                "model '{}' has no tokenizer (tokenizer.json, or vocab.json and merges.txt), expected one to chat with",
                hornbook.name()
            )));
        }
        hornbook.plan(&[0], &options)?;
        let session = Session::new(hornbook.model(), hornbook.config().n_positions, options.kv_precision);
        Ok(Self { hornbook, template, options, turns: vec![], session, read: vec![], cost: None })
    }

    /// How it becomes a prompt.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The model, as the user calls it.
    pub fn model(&self) -> &str {
        self.hornbook.name()
    }

    /// What was said, the oldest first.
    pub fn messages(&self) -> &[ChatMessage] {
        &self.turns
    }

    /// What the model was told about how to answer.
    pub fn system(&self) -> Option<&str> {
        self.turns.iter().find(|turn| turn.is_system()).map(|turn| turn.content.as_str())
    }

    /// Tokens the model has read, and how many the context has room for.
    pub fn context_usage(&self) -> (usize, usize) {
        (self.read.len(), self.hornbook.config().n_positions)
    }

    /// What the last answer cost.
    pub fn last_stats(&self) -> Option<&AnswerStats> {
        self.cost.as_ref()
    }

    /// Forgets what was said, but for the system message.
    pub fn reset(&mut self) {
        self.turns.retain(ChatMessage::is_system);
        self.cost = None;
    }

    /// Says how to answer, instead of what was said about it before; nothing takes it back.
    ///
    /// # Errors
    /// [`Error::Message`] for a template that has no place for it; all is then as before.
    pub fn set_system(&mut self, text: Option<&str>) -> Result<()> {
        let system = text.map(|text| ChatMessage::new("system", text));
        let talk = self.turns.iter().filter(|turn| !turn.is_system()).cloned();
        let turns: Vec<ChatMessage> = system.into_iter().chain(talk).collect();
        self.check(&turns)?;
        self.turns = turns;
        Ok(())
    }

    /// Takes up another conversation, as far as it has come.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Message`] for one that the template refuses; all is then as before.
    pub fn set_messages(&mut self, turns: Vec<ChatMessage>) -> Result<()> {
        self.check(&turns)?;
        (self.turns, self.cost) = (turns, None);
        Ok(())
    }

    /// Says something; the answer is there once it was iterated over.
    ///
    /// # Errors
    /// [`Error::Message`] for more than the context has room for or what the template refuses, and [`Error::Parameter`]
    /// for options out of range; it is then as if nothing had been said.
    pub fn send(&mut self, text: impl Into<String>) -> Result<Answer<'_, 'h>> {
        let mut turns = self.turns.clone();
        turns.push(ChatMessage::new("user", text));
        self.begin(turns, self.options.sampling.seed)
    }

    /// Takes the last answer back, where there is one, and gives another to the same: that of the next seed.
    ///
    /// # Errors
    /// [`Error::Message`] where there is nothing to answer, else as [`Conversation::send`].
    pub fn retry(&mut self) -> Result<Answer<'_, 'h>> {
        let mut turns = self.turns.clone();
        let answered = turns.pop_if(|last| last.role == "assistant").is_some();
        if turns.last().is_none_or(|last| last.role != "user") {
            return Err(Error::Message("nothing was said yet that could be answered again".into()));
        }
        let seed = self.options.sampling.seed.wrapping_add(u64::from(answered));
        self.begin(turns, seed)
    }

    /// Begins to answer `turns`, which are then what was said, with a seed that then holds.
    fn begin(&mut self, turns: Vec<ChatMessage>, seed: u64) -> Result<Answer<'_, 'h>> {
        let (dropped_messages, prompt) = self.fit_to_context(&turns)?;
        let mut options = self.options.clone();
        options.sampling.seed = seed;
        options.context = ContextPolicy::Stop; // what is forgotten are turns
        options.stop.extend_from_slice(self.template.stop());
        let plan = self.hornbook.plan(&prompt, &options)?;
        // Each answer has random numbers of its own.
        let writer =
            plan.start_completion(turns.iter().filter(|turn| turn.role == "assistant").count() as u64);
        let prompt = writer.prompt();
        // The last token is read again where all were: its logits are needed.
        let reused = common_prefix_len(&self.read, prompt).min(prompt.len() - 1);
        let cost = AnswerStats::new(prompt.len(), reused, dropped_messages);
        self.session.truncate(reused);
        self.read.truncate(reused);
        (self.turns, self.options.sampling.seed) = (turns, seed);
        Ok(Answer::new(self, writer, cost))
    }

    /// An answer has ended.
    pub(super) fn answered(&mut self, text: String, cost: AnswerStats) {
        self.turns.push(ChatMessage::new("assistant", text));
        self.cost = Some(cost);
    }

    /// The prompt that `turns` are, without the oldest of them where the context has no room for all and an answer, and
    /// how many those are. System messages always stay, and so does what is to be answered.
    fn fit_to_context(&self, turns: &[ChatMessage]) -> Result<(usize, Vec<u32>)> {
        let n_positions = self.hornbook.config().n_positions;
        let room = (n_positions / SHARE_OF_ANSWER).min(self.options.max_tokens.unwrap_or(n_positions)).max(1);
        let fits = |prompt: &[u32]| prompt.len() + room <= n_positions;
        let whole = self.prompt(turns)?;
        if fits(&whole) {
            return Ok((0, whole));
        }
        // Where exchanges begin, and the tokens said before each.
        let (mut begins, mut said) = (vec![], 0);
        for (i, turn) in turns.iter().enumerate().filter(|(_, turn)| !turn.is_system()) {
            if turn.role == "user" {
                begins.push((i, said));
            }
            said += self.hornbook.encode(&turn.content)?.len();
        }
        // In steps counted from the beginning, so that it follows from what was said alone.
        let step = n_positions.div_ceil(SHARE_LEFT_OUT);
        let mut left_out = said.saturating_sub(n_positions) / step * step;
        let (dropped, prompt) = loop {
            left_out += step;
            let begin = begins.iter().find(|(_, before)| *before >= left_out);
            let first = begin.or(begins.last()).map_or(0, |(first, _)| *first);
            let part = turns.iter().enumerate().filter(|(i, turn)| *i >= first || turn.is_system());
            let part: Vec<ChatMessage> = part.map(|(_, turn)| turn.clone()).collect();
            let prompt = self.prompt(&part)?;
            if begin.is_none() || fits(&prompt) {
                break (turns.len() - part.len(), prompt);
            }
        };
        match prompt.len() < n_positions {
            true => Ok((dropped, prompt)),
            false => Err(Error::Message(format!(
                "the message is too long: the prompt is {} tokens with it alone, expected at most {} in this model's \
                 context of {n_positions}",
                prompt.len(),
                n_positions - 1
            ))),
        }
    }

    fn prompt(&self, turns: &[ChatMessage]) -> Result<Vec<u32>> {
        let (_, ids) = self.template.apply(turns, self.hornbook.tokenizer()?, self.hornbook.config())?;
        Ok(ids)
    }

    /// Whether the template takes `turns`, with something to answer at their end.
    fn check(&self, turns: &[ChatMessage]) -> Result<()> {
        let mut turns = turns.to_vec();
        if turns.last().is_none_or(|last| last.role != "user") {
            turns.push(ChatMessage::new("user", "?"));
        }
        self.prompt(&turns).map(drop)
    }
}

#[cfg(test)]
mod tests;
