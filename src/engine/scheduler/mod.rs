//! The scheduler: continuous batching on the engine thread. Each step admits new requests, assigns batch
//! slots, runs one forward pass over the running sequences and publishes the results.

mod drafts;

use super::batch_slots::{SlotChange, SlotDemand, TokenDemand, next_slot_change, schedule_tokens};
use super::logit_jobs::LogitJobs;
use super::prefix_cache::PrefixCache;
use super::profile::{Profiler, Recording};
use super::sequence::{MeanPoolers, RunningSequence, Task};
use super::stream::{Event, EventSender};
use super::submission_queue::{Permit, Submission, SubmissionQueue};
use super::{EngineOptions, Priority, Statistics};
use crate::generate::Drafter;
use crate::model::{AdapterWeights, KvCache, LogitsWanted, Segment, Workspace, common_prefix_len};
use crate::{Error, FinishReason, Hornbook, Result};
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Tokens that may be copied between KV caches before a pass, per token of the prefill budget: copying
/// GPT-2's keys and values of a token takes about a twentieth of the time to compute them.
const MAX_COPIED_PER_PREFILL_TOKEN: usize = 16;

/// The state of the engine thread.
pub(super) struct Scheduler {
    hornbook: Arc<Hornbook>,
    options: EngineOptions,
    queue: Arc<SubmissionQueue>,
    /// In order of arrival.
    requests: Vec<RequestState>,
    prefix_cache: PrefixCache,
    workspace: Workspace,
    drafter: Drafter,
    statistics: Statistics,
    profiler: Profiler,
}

/// An unfinished request.
struct RequestState {
    permit: Permit,
    events: EventSender,
    /// The adapter of all its sequences.
    adapter: Option<Arc<AdapterWeights>>,
    priority: Priority,
    waiting: VecDeque<Task>,
    running: Vec<RunningSequence>,
    /// Whether the prompt is computed; until then the other sequences wait for the first, to start from a
    /// copy of its keys and values.
    prompt_computed: bool,
    /// An error that ends this request alone.
    failure: Option<Error>,
    /// Whether it is the completion that started last, whose passes are profiled.
    is_latest: bool,
}

/// Events to send at the end of a step. Statistics are published and permits released first, so that a client
/// that has received the last event of a request finds its slot free.
type Outbox = Vec<(EventSender, Event)>;

impl Scheduler {
    pub(super) fn new(hornbook: Arc<Hornbook>, options: EngineOptions, queue: Arc<SubmissionQueue>) -> Self {
        let prefix_cache = PrefixCache::new(options.prefix_cache_bytes);
        let batch_slots = options.max_concurrency;
        let statistics = Statistics {
            batch_slots,
            batch_sizes: vec![0; batch_slots + 1],
            max_kv_tokens: batch_slots * hornbook.config().n_positions,
            ..Statistics::default()
        };
        queue.publish(&statistics);
        let (requests, workspace, drafter) = (vec![], Workspace::new(), Drafter::default());
        let profiler = Profiler::new(hornbook.model());
        Self { hornbook, options, queue, requests, prefix_cache, workspace, drafter, statistics, profiler }
    }

    /// Runs until the engine is dropped.
    pub(super) fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run_steps())).is_err() {
            // All state of unfinished requests is discarded; the model itself is immutable.
            self.fail_all("the engine panicked during a step (this is a bug); retry the request");
            self.prefix_cache = PrefixCache::new(self.options.prefix_cache_bytes);
            self.workspace = Workspace::new();
        }
        let late = self.queue.shutdown();
        self.admit(late);
        self.fail_all("the engine was shut down before the request finished");
    }

    fn run_steps(&mut self) {
        while let Some(submissions) = self.queue.drain(self.requests.is_empty()) {
            self.admit(submissions);
            if let Err(error) = self.step() {
                self.fail_all(&error.to_string());
            }
        }
    }

    fn admit(&mut self, submissions: Vec<Submission>) {
        let state = |Submission { tasks, adapter, priority, events, permit }| {
            let (waiting, running, prompt_computed) = (VecDeque::from(tasks), vec![], false);
            let (failure, is_latest) = (None, false);
            RequestState {
                permit,
                events,
                adapter,
                priority,
                waiting,
                running,
                prompt_computed,
                failure,
                is_latest,
            }
        };
        self.requests.extend(submissions.into_iter().map(state));
    }

    /// One forward pass, with the scheduling before and the results after it.
    fn step(&mut self) -> Result<()> {
        self.requests.retain(|request| !request.events.is_closed()); // cancelled by the client
        let mut outbox = Outbox::new();
        let fair_lock = self.options.fair_lock.clone();
        let guard = fair_lock.lock();
        self.assign_slots(&mut outbox);
        let demands: Vec<TokenDemand> = self.requests.iter().flat_map(RequestState::token_demands).collect();
        if !demands.is_empty() {
            let step = self.statistics.steps as usize;
            let mut scheduled = schedule_tokens(&demands, self.options.prefill_chunk, step);
            let is_drafted = self.draft()?;
            for (n, sequence) in scheduled.iter_mut().zip(self.running()) {
                *n += sequence.task.draft().len();
            }
            let start = Instant::now();
            self.forward(&scheduled)?;
            if is_drafted {
                let n_drafted = scheduled.iter().sum::<usize>() - scheduled.len();
                self.drafter.record_pass(scheduled.len(), n_drafted, start.elapsed().as_secs_f64());
            }
            self.process_logits(&scheduled);
            self.profiler.finish_pass(self.hornbook.model(), &mut self.queue.recording());
            self.remove_failed(&mut outbox);
            self.collect_outputs(&mut outbox);
        }
        drop(guard);
        self.publish(outbox);
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = &RunningSequence> {
        self.requests.iter().flat_map(|request| &request.running)
    }

    /// Admits and preempts sequences until slots are allotted fairly; spread over several steps if there is
    /// much to copy.
    fn assign_slots(&mut self, outbox: &mut Outbox) {
        for request in &mut self.requests {
            request.remove_finished_waiting(outbox);
        }
        self.requests.retain(|request| !request.is_finished());
        let mut copied = 0;
        while copied < MAX_COPIED_PER_PREFILL_TOKEN * self.options.prefill_chunk {
            let demands: Vec<SlotDemand> = self.requests.iter().map(RequestState::slot_demand).collect();
            match next_slot_change(&demands, self.options.max_concurrency) {
                None => break,
                Some(SlotChange::Admit(i)) => {
                    let Some(task) = self.requests[i].waiting.pop_front() else { break };
                    let cache = self.cache_for(&task, i);
                    copied += cache.len();
                    if matches!(task, Task::Complete(_)) && !self.requests[i].has_started() {
                        self.requests.iter_mut().for_each(|request| request.is_latest = false);
                        self.requests[i].is_latest = true;
                        let tokens = task.tokens().len();
                        let recording = Recording::new(self.hornbook.model(), tokens, cache.len());
                        *self.queue.recording() = Some(recording);
                    }
                    self.requests[i].permit.leave_queue();
                    self.requests[i].running.push(RunningSequence { task, cache });
                }
                Some(SlotChange::Preempt(i)) => {
                    let Some(RunningSequence { task, cache }) = self.requests[i].running.pop() else { break };
                    copied += cache.len();
                    self.prefix_cache.insert(&task.tokens()[..cache.len()], cache);
                    self.requests[i].waiting.push_front(task);
                }
            }
        }
    }

    /// Returns a KV cache for a sequence of a request to admit, with its longest prefix found in a running
    /// sequence or in the prefix cache. Only the first sequence of a request counts in the statistics.
    fn cache_for(&mut self, task: &Task, request: usize) -> KvCache {
        let (tokens, positions) = (task.reusable_prefix(), task.positions());
        let (adapter, first) = (&self.requests[request].adapter, !self.requests[request].has_started());
        let running = self.running().filter(|s| s.cache.is_of(adapter.as_ref()));
        let running =
            running.map(|s| (common_prefix_len(tokens, &s.task.tokens()[..s.cache.len()]), &s.cache));
        let running = running.max_by_key(|(len, _)| *len).filter(|(len, _)| *len > 0);
        let cached = self.prefix_cache.longest_match(tokens, adapter.as_ref());
        let cache = match (running, cached) {
            (Some((len, cache)), cached) if cached.is_none_or(|cached| cached.len < len) => {
                cache.fork(len, positions)
            }
            (_, Some(cached)) => self.prefix_cache.take_or_fork(cached, positions),
            _ => {
                let model = self.hornbook.model();
                model.kv_cache(positions, self.options.kv_precision).with_adapter(adapter.clone())
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

    /// Computes the scheduled number of tokens of each running sequence, in one forward pass.
    fn forward(&mut self, scheduled: &[usize]) -> Result<()> {
        let (mut batch, mut poolers, mut row) = (vec![], vec![], 0);
        self.profiler.start_pass();
        let running = self.requests.iter_mut().flat_map(|request| {
            let is_latest = request.is_latest;
            request.running.iter_mut().map(move |sequence| (sequence, is_latest))
        });
        for ((RunningSequence { task, cache }, is_latest), n) in running.zip(scheduled) {
            if *n == 0 {
                continue;
            }
            if is_latest {
                let is_prefill = task.in_prompt() || n - task.draft().len() > 1;
                self.profiler.add_tokens(*n, is_prefill);
            }
            let new = cache.len()..cache.len() + n;
            let logits = task.logits_wanted(new.end);
            let tokens = match task {
                Task::Complete(completion) => completion.pass_tokens(new),
                Task::Embed(embedding) => {
                    let (tokens, pooler) = embedding.pooler(row..row + n, new.start);
                    poolers.push(pooler);
                    &tokens[new]
                }
            };
            batch.push(Segment { tokens, cache, logits });
            row += n;
        }
        self.statistics.steps += 1;
        self.statistics.batch_sizes[batch.len()] += 1;
        let model = self.hornbook.model();
        match poolers.is_empty() {
            true => {
                let timer = self.profiler.timer(&batch);
                model.forward(&mut batch, &mut self.workspace, timer)
            }
            false => model.forward(&mut batch, &mut self.workspace, &mut MeanPoolers(poolers)),
        }
    }

    /// Samples and scores from the logits of the pass. Logits and embeddings that are not finite numbers fail
    /// their request.
    fn process_logits(&mut self, scheduled: &[usize]) {
        let (model, logits) = (self.hornbook.model(), self.workspace.logits());
        let (mut jobs, mut row) = (LogitJobs::default(), 0);
        let running = self.requests.iter_mut().flat_map(|request| {
            let RequestState { running, failure, .. } = request;
            let failure = Cell::from_mut(failure);
            running.iter_mut().map(move |sequence| (sequence, failure))
        });
        for ((RunningSequence { task, cache }, failure), n) in running.zip(scheduled) {
            let computed = cache.len() - n..cache.len();
            if task.in_prompt() {
                self.statistics.prompt_tokens_computed += *n as u64;
            }
            let n_logits = match (task.logits_wanted(computed.end), n) {
                (LogitsWanted::None, _) | (_, 0) => 0,
                (LogitsWanted::Last, _) => 1,
                (LogitsWanted::All, n) => *n,
            };
            let logits = logits.row_range(row, n_logits);
            row += n_logits;
            let finite = match task {
                Task::Embed(embedding) => embedding.check_finite(model, cache),
                Task::Complete(_) => model.check_finite(logits, cache),
            };
            match (task, finite) {
                (_, Err(error)) => failure.set(Some(error)),
                (Task::Complete(completion), Ok(())) if n_logits > 0 => {
                    jobs.add(completion, computed, logits)
                }
                _ => {}
            }
        }
        jobs.run(model.pool(), self.hornbook.try_tokenizer());
    }

    /// Ends the requests that failed in this step.
    fn remove_failed(&mut self, outbox: &mut Outbox) {
        for request in &mut self.requests {
            if let Some(error) = request.failure.take() {
                outbox.push((request.events.clone(), Event::Failed(error)));
                request.waiting.clear();
                request.running.clear();
            }
        }
        self.requests.retain(|request| !request.is_finished());
    }

    /// Collects the outputs of every sequence, and removes finished ones.
    fn collect_outputs(&mut self, outbox: &mut Outbox) {
        for request in &mut self.requests {
            let RequestState { running, prompt_computed, events, .. } = request;
            for RunningSequence { task, cache } in running.iter_mut() {
                if let Task::Complete(completion) = task {
                    let prompt_len = completion.state.prompt().len();
                    *prompt_computed |= !completion.state.generated().is_empty();
                    if let Some(scored) = completion.scored.take_if(|_| cache.len() == prompt_len) {
                        outbox.push((events.clone(), Event::Prompt(scored)));
                    }
                    let n_new = completion.new_tokens.len();
                    if n_new > 0 {
                        let n_rejected = completion.draft.to_compute().len() + 1 - n_new;
                        cache.truncate(cache.len() - n_rejected);
                        self.statistics.generated_tokens += n_new as u64;
                        self.statistics.drafts.accepted_tokens += n_new as u64 - 1;
                        if completion.state.window().len() <= cache.len() {
                            cache.truncate(0); // context shift: the last half is computed again
                        }
                    }
                    for token in completion.new_tokens.drain(..) {
                        outbox.push((events.clone(), Event::Token { choice: completion.index, token }));
                    }
                }
            }
            for RunningSequence { task, cache } in
                running.extract_if(.., |running| running.task.is_finished())
            {
                if let Task::Complete(_) = &task {
                    self.prefix_cache.insert(&task.tokens()[..cache.len()], cache);
                }
                outbox.push((events.clone(), final_event(task)));
            }
            request.remove_finished_waiting(outbox);
        }
        self.requests.retain(|request| !request.is_finished());
    }

    /// Fails all unfinished requests.
    fn fail_all(&mut self, reason: &str) {
        let senders = self.requests.drain(..).map(|request| request.events);
        let outbox =
            senders.map(|events| (events, Event::Failed(Error::Aborted { reason: reason.into() }))).collect();
        self.publish(outbox);
    }

    /// Publishes the statistics, then sends the events.
    fn publish(&mut self, outbox: Outbox) {
        self.statistics.running = self.running().count();
        self.statistics.waiting = self.requests.iter().map(|request| request.waiting.len()).sum();
        self.statistics.kv_bytes = self.running().map(|sequence| sequence.cache.bytes()).sum();
        self.statistics.kv_tokens = self.running().map(|sequence| sequence.cache.len()).sum();
        self.statistics.prefix_cache_entries = self.prefix_cache.len();
        self.statistics.prefix_cache_bytes = self.prefix_cache.bytes();
        self.queue.publish(&self.statistics);
        for (events, event) in outbox {
            let _ = events.send(event); // a cancelled request is removed in the next step
        }
    }
}

impl RequestState {
    fn slot_demand(&self) -> SlotDemand {
        let has_waiting = !self.waiting.is_empty() && (self.prompt_computed || self.running.is_empty());
        SlotDemand { priority: self.priority, running: self.running.len(), has_waiting }
    }

    /// The demand of each running sequence.
    fn token_demands(&self) -> impl Iterator<Item = TokenDemand> {
        self.running.iter().map(|RunningSequence { task, cache }| TokenDemand {
            priority: self.priority,
            uncomputed: task.tokens().len() - cache.len(),
            scored: task.is_scoring(),
        })
    }

    fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Whether any part of the request was computed.
    fn has_started(&self) -> bool {
        self.prompt_computed || !self.running.is_empty()
    }

    /// Removes waiting sequences with nothing to compute, once no sequence is running whose events come
    /// first.
    fn remove_finished_waiting(&mut self, outbox: &mut Outbox) {
        while self.running.is_empty()
            && let Some(task) = self.waiting.pop_front_if(|task| task.is_finished())
        {
            outbox.push((self.events.clone(), final_event(task)));
        }
    }
}

/// The last event of a finished sequence.
fn final_event(task: Task) -> Event {
    match task {
        Task::Complete(completion) => {
            let reason = completion.state.finish_reason().unwrap_or(FinishReason::Length);
            Event::Finished { choice: completion.index, reason }
        }
        Task::Embed(embedding) => Event::Embedding(embedding.mean()),
    }
}

#[cfg(test)]
mod tests;
