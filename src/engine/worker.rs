//! The thread that computes: it lets requests in, seats their sequences, runs the model over them and tells what came
//! of it, again and again.

use super::door::{Arrival, Door, Place};
use super::prefixes::Prefixes;
use super::readings::Readings;
use super::seats::{Claim, Move, Need, deal, next_move};
use super::sequence::{Looks, Seated, Task};
use super::stream::{Event, Events};
use super::{EngineOptions, Statistics};
use crate::model::{KvCache, Scratch, Segment, Wanted, common};
use crate::{Error, FinishReason, Hornbook, Result};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Tokens that may be copied from one cache to another before a pass, for each that may be prefilled in it: copying
/// GPT-2's keys and values of a token takes about a twentieth of the time that computing them does.
const COPIED: usize = 16;

/// Everything the thread works with.
pub(super) struct Worker {
    hornbook: Arc<Hornbook>,
    options: EngineOptions,
    door: Arc<Door>,
    /// In the order they came.
    requests: Vec<Open>,
    prefixes: Prefixes,
    scratch: Scratch,
    statistics: Statistics,
}

/// A request that is not over.
struct Open {
    place: Place,
    events: Events,
    waiting: VecDeque<Task>,
    seated: Vec<Seated>,
    /// Whether its prompt is computed; until then its other sequences wait for the first, to begin with a copy.
    read: bool,
}

/// Events that nobody was told yet. First the numbers are published, then people are told: whoever has heard that a
/// request is over finds its place free.
type News = Vec<(Events, Event)>;

impl Worker {
    pub(super) fn new(hornbook: Arc<Hornbook>, options: EngineOptions, door: Arc<Door>) -> Self {
        let prefixes = Prefixes::new(options.prefix_cache_bytes);
        let batch_sizes = vec![0; options.max_concurrency + 1];
        let statistics = Statistics { batch_sizes, ..Statistics::default() };
        door.publish(&statistics);
        Self { hornbook, options, door, requests: vec![], prefixes, scratch: Scratch::new(), statistics }
    }

    /// Works until the engine is dropped.
    pub(super) fn work(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.turns())).is_err() {
            // Whatever was half done is thrown away; the model itself never changes.
            self.fail("the engine failed while it computed (this is a bug); the request can be sent again");
            self.prefixes = Prefixes::new(self.options.prefix_cache_bytes);
            self.scratch = Scratch::new();
        }
        let late = self.door.lock_up();
        self.admit(late);
        self.fail("the engine was shut down before the request was done");
    }

    fn turns(&mut self) {
        while let Some(arrivals) = self.door.arrivals(self.requests.is_empty()) {
            self.admit(arrivals);
            if let Err(error) = self.turn() {
                self.fail(&error.to_string());
            }
        }
    }

    fn admit(&mut self, arrivals: Vec<Arrival>) {
        self.requests.extend(arrivals.into_iter().map(|Arrival { tasks, events, place }| Open {
            place,
            events,
            waiting: tasks.into(),
            seated: vec![],
            read: false,
        }));
    }

    /// One pass, with everything before and after it.
    fn turn(&mut self) -> Result<()> {
        self.requests.retain(|request| !request.events.is_closed()); // nobody listens any more
        let mut news = News::new();
        let turns = self.options.turns.clone();
        let turn = turns.wait();
        self.seat(&mut news);
        let needs: Vec<Need> =
            self.seated().map(|s| Need { left: s.left(), scored: s.task.scores() }).collect();
        if !needs.is_empty() {
            let shares = deal(&needs, self.options.prefill_chunk, self.statistics.steps as usize);
            self.forward(&shares)?;
            self.read(&shares);
            self.settle(&mut news);
        }
        drop(turn);
        self.tell(news);
        Ok(())
    }

    fn seated(&self) -> impl Iterator<Item = &Seated> {
        self.requests.iter().flat_map(|request| &request.seated)
    }

    /// Gives every request the seats that are its due; with much to copy, over several turns.
    fn seat(&mut self, news: &mut News) {
        for request in &mut self.requests {
            request.pass_over_done(news);
        }
        self.requests.retain(|request| !request.is_over());
        let mut copied = 0;
        while copied < COPIED * self.options.prefill_chunk {
            let claims: Vec<Claim> = self.requests.iter().map(Open::claim).collect();
            match next_move(&claims, self.options.max_concurrency) {
                None => break,
                Some(Move::Sit(i)) => {
                    let Some(task) = self.requests[i].waiting.pop_front() else { break };
                    let cache = self.cache_for(&task, !self.requests[i].begun());
                    copied += cache.len();
                    self.requests[i].place.begin();
                    self.requests[i].seated.push(Seated { task, cache });
                }
                Some(Move::Rise(i)) => {
                    let Some(Seated { task, cache }) = self.requests[i].seated.pop() else { break };
                    copied += cache.len();
                    self.prefixes.put(&task.tokens()[..cache.len()], cache);
                    self.requests[i].waiting.push_front(task);
                }
            }
        }
    }

    /// A cache for a sequence that sits down, with as much of its beginning as can be had: from one that runs, or one
    /// that is kept. Counted is only the `first` of a request.
    fn cache_for(&mut self, task: &Task, first: bool) -> KvCache {
        let (tokens, positions) = (task.spare(), task.positions());
        let running = self.seated().map(|s| (common(tokens, &s.task.tokens()[..s.cache.len()]), &s.cache));
        let running = running.max_by_key(|(len, _)| *len).filter(|(len, _)| *len > 0);
        let kept = self.prefixes.longest(tokens);
        let cache = match (running, kept) {
            (Some((len, cache)), kept) if kept.is_none_or(|kept| kept.len < len) => {
                cache.fork(len, positions)
            }
            (_, Some(kept)) => self.prefixes.take(kept, positions),
            _ => {
                let model = self.hornbook.model();
                let precision = self.options.kv_precision.unwrap_or(model.kv_precision());
                KvCache::new(model.config(), positions, precision)
            }
        };
        if first && !tokens.is_empty() {
            match cache.len() {
                0 => self.statistics.prefix_cache_misses += 1,
                _ => self.statistics.prefix_cache_hits += 1,
            }
            self.statistics.prompt_tokens_cached += cache.len() as u64;
        }
        cache
    }

    /// Takes each seated sequence on by its share of tokens.
    fn forward(&mut self, shares: &[usize]) -> Result<()> {
        let (mut batch, mut looks, mut row) = (vec![], vec![], 0);
        for (Seated { task, cache }, n) in self.requests.iter_mut().flat_map(|r| &mut r.seated).zip(shares) {
            if *n == 0 {
                continue;
            }
            let new = cache.len()..cache.len() + n;
            let wanted = task.wanted(new.end);
            let tokens = match task {
                Task::Write(choice) => choice.writer.window(),
                Task::Embed(embedding) => {
                    let (tokens, look) = embedding.look(row..row + n);
                    looks.push(look);
                    tokens
                }
            };
            batch.push(Segment { tokens: &tokens[new], cache, wanted });
            row += n;
        }
        self.statistics.steps += 1;
        self.statistics.batch_sizes[batch.len()] += 1;
        let model = self.hornbook.model();
        match looks.is_empty() {
            true => model.forward(&mut batch, &mut self.scratch, &mut ()),
            false => model.forward(&mut batch, &mut self.scratch, &mut Looks(looks)),
        }
    }

    /// Reads what the pass has found.
    fn read(&mut self, shares: &[usize]) {
        let logits = self.scratch.logits();
        let (mut readings, mut row) = (Readings::default(), 0);
        for (Seated { task, cache }, n) in self.requests.iter_mut().flat_map(|r| &mut r.seated).zip(shares) {
            let computed = cache.len() - n..cache.len();
            if task.in_prompt() {
                self.statistics.prompt_tokens_computed += *n as u64;
            }
            let wanted = match (task.wanted(computed.end), n) {
                (Wanted::None, _) | (_, 0) => 0,
                (Wanted::Last, _) => 1,
                (Wanted::All, n) => *n,
            };
            if let (Task::Write(choice), 1..) = (task, wanted) {
                readings.add(choice, computed, logits.range(row, wanted));
            }
            row += wanted;
        }
        readings.read(self.hornbook.model().team(), self.hornbook.try_tokenizer());
    }

    /// Collects what has come of every sequence, and clears away those that are over.
    fn settle(&mut self, news: &mut News) {
        for request in &mut self.requests {
            let Open { seated, read, events, .. } = request;
            for Seated { task, cache } in seated.iter_mut() {
                if let Task::Write(choice) = task {
                    let prompt = choice.writer.prompt().len();
                    *read |= !choice.writer.generated().is_empty();
                    if let Some(scored) = choice.scored.take_if(|_| cache.len() == prompt) {
                        news.push((events.clone(), Event::Prompt(scored)));
                    }
                    if let Some(token) = choice.fresh.take() {
                        self.statistics.generated_tokens += 1;
                        if choice.writer.window().len() <= cache.len() {
                            cache.truncate(0); // the context was full, and its last half is read again
                        }
                        news.push((events.clone(), Event::Token { choice: choice.index, token }));
                    }
                }
            }
            for Seated { task, cache } in seated.extract_if(.., |seated| seated.task.is_done()) {
                if let Task::Write(_) = &task {
                    self.prefixes.put(&task.tokens()[..cache.len()], cache);
                }
                news.push((events.clone(), ending(task)));
            }
            request.pass_over_done(news);
        }
        self.requests.retain(|request| !request.is_over());
    }

    /// Fails everything that is open.
    fn fail(&mut self, why: &str) {
        let open = self.requests.drain(..).map(|request| request.events);
        let news = open.map(|events| (events, Event::Failed(Error::Message(why.into())))).collect();
        self.tell(news);
    }

    fn tell(&mut self, news: News) {
        self.statistics.running = self.seated().count();
        self.statistics.waiting = self.requests.iter().map(|request| request.waiting.len()).sum();
        self.statistics.kv_bytes = self.seated().map(|seated| seated.cache.bytes()).sum();
        self.statistics.prefix_cache_entries = self.prefixes.len();
        self.statistics.prefix_cache_bytes = self.prefixes.bytes();
        self.door.publish(&self.statistics);
        for (events, event) in news {
            let _ = events.send(event); // whoever hung up is noticed at the next turn
        }
    }
}

impl Open {
    fn claim(&self) -> Claim {
        let waits = !self.waiting.is_empty() && (self.read || self.seated.is_empty());
        Claim { seated: self.seated.len(), waits }
    }

    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.seated.is_empty()
    }

    /// Whether any of it was computed.
    fn begun(&self) -> bool {
        self.read || !self.seated.is_empty()
    }

    /// Takes out those that wait for nothing, having nothing to write; once nothing else of the request is to be told.
    fn pass_over_done(&mut self, news: &mut News) {
        while self.seated.is_empty()
            && let Some(task) = self.waiting.pop_front_if(|task| task.is_done())
        {
            news.push((self.events.clone(), ending(task)));
        }
    }
}

/// The last event of a sequence that is over.
fn ending(task: Task) -> Event {
    match task {
        Task::Write(choice) => {
            let reason = choice.writer.finish_reason().unwrap_or(FinishReason::Length);
            Event::Finished { choice: choice.index, reason }
        }
        Task::Embed(embedding) => Event::Embedding(embedding.mean()),
    }
}

#[cfg(test)]
mod tests;
