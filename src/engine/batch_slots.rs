//! Batch slots and the token budget: which sequences take part in the next step, and with how many tokens.
//!
//! Slots are allotted fairly between *requests*: the next free slot goes to the request with the fewest
//! slots, and among equals to the one that came first. If no slot is free, a request with at least two slots
//! more than a waiting one is preempted: it loses a slot, and the sequence in that slot resumes later from
//! its computed tokens. So a request for a hundred completions fills every slot while it is alone, but does
//! not delay the next request.
//!
//! Between priorities there is no fairness: a live request goes first, and takes the slot of one of low
//! priority.

use super::Priority;
use crate::model::PREFILL_CHUNK;
use std::cmp::Ordering;

/// A change of the slots' allotment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotChange {
    /// Run the next waiting sequence of the request with this index.
    Admit(usize),
    /// Preempt the last running sequence of the request with this index.
    Preempt(usize),
}

/// A request's slots and demand for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotDemand {
    pub(super) priority: Priority,
    /// Running sequences, one slot each.
    pub(super) running: usize,
    /// Whether a sequence of the request is ready to run.
    pub(super) has_waiting: bool,
}

/// Returns the next change; none once the allotment is fair. `demands` are in order of arrival.
pub(super) fn next_slot_change(demands: &[SlotDemand], slots: usize) -> Option<SlotChange> {
    let waiting = demands.iter().enumerate().filter(|(_, demand)| demand.has_waiting);
    let (to_admit, next) = waiting.min_by_key(|(_, demand)| (demand.priority, demand.running))?;
    if demands.iter().map(|demand| demand.running).sum::<usize>() < slots {
        return Some(SlotChange::Admit(to_admit));
    }
    let running = demands.iter().enumerate().filter(|(_, demand)| demand.running > 0);
    let (to_preempt, last) = running.max_by_key(|(_, demand)| (demand.priority, demand.running))?;
    let makes_way = match last.priority.cmp(&next.priority) {
        Ordering::Less => false,
        Ordering::Equal => last.running >= next.running + 2,
        Ordering::Greater => true,
    };
    makes_way.then_some(SlotChange::Preempt(to_preempt))
}

/// Maximum tokens of a step that are scored: the logits of a token take far more memory than its activations.
const MAX_SCORED_TOKENS: usize = 32;

/// A running sequence's demand for tokens of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenDemand {
    pub(super) priority: Priority,
    /// Tokens not yet computed, at least one.
    pub(super) uncomputed: usize,
    /// Whether they are to be scored.
    pub(super) scored: bool,
}

/// How many times more prompt tokens a step has, up to [`PREFILL_CHUNK`], for a sequence that is alone and so
/// delays no other: a pass over more tokens takes less time for each.
const ALONE_FACTOR: usize = 4;

/// Returns the number of tokens each sequence is scheduled for in `step`. A sequence with a single uncomputed
/// token (decode) always gets it; the others (chunked prefill) share `prefill_chunk`. Up to half of it goes
/// to the shortest prompts that can be finished in this step, so that they do not wait for long ones; the
/// rest is shared round-robin token by token, starting with a different sequence each step. Those of low
/// priority share what the live ones leave.
pub(super) fn schedule_tokens(demands: &[TokenDemand], prefill_chunk: usize, step: usize) -> Vec<usize> {
    let mut scheduled: Vec<usize> =
        demands.iter().map(|demand| usize::from(demand.uncomputed == 1)).collect();
    let alone = prefill_chunk.max(PREFILL_CHUNK.min(prefill_chunk.saturating_mul(ALONE_FACTOR)));
    let token_budget = if demands.len() > 1 { prefill_chunk } else { alone };
    let (mut budget, mut scored_tokens) = (token_budget, 0);
    for priority in [Priority::Live, Priority::Low] {
        let is_prefilling = |demand: &TokenDemand| demand.uncomputed > 1 && demand.priority == priority;
        let mut prefilling: Vec<usize> = (0..demands.len()).filter(|&i| is_prefilling(&demands[i])).collect();
        let mut shortest_first: Vec<usize> =
            prefilling.iter().copied().filter(|&i| !demands[i].scored).collect();
        shortest_first.sort_by_key(|&i| demands[i].uncomputed);
        for i in shortest_first {
            if token_budget - budget + demands[i].uncomputed > token_budget / 2 {
                break;
            }
            scheduled[i] = demands[i].uncomputed;
            budget -= scheduled[i];
        }
        prefilling.retain(|&i| scheduled[i] == 0);
        let mut progress = true;
        while progress {
            progress = false;
            for i in (0..prefilling.len()).map(|i| prefilling[(i + step) % prefilling.len()]) {
                let TokenDemand { uncomputed, scored, .. } = demands[i];
                if budget > 0 && scheduled[i] < uncomputed && !(scored && scored_tokens == MAX_SCORED_TOKENS)
                {
                    scheduled[i] += 1;
                    budget -= 1;
                    scored_tokens += usize::from(scored);
                    progress = true;
                }
            }
        }
    }
    scheduled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies changes until there are none; `waiting` counts each request's waiting sequences.
    fn apply_all(running: &mut [usize], waiting: &mut [usize], slots: usize) -> Vec<SlotChange> {
        apply_with(&vec![Priority::Live; running.len()], running, waiting, slots)
    }

    /// The same with requests of these priorities.
    fn apply_with(
        priorities: &[Priority],
        running: &mut [usize],
        waiting: &mut [usize],
        slots: usize,
    ) -> Vec<SlotChange> {
        let mut changes = vec![];
        loop {
            let demands: Vec<SlotDemand> = (0..running.len())
                .map(|i| SlotDemand {
                    priority: priorities[i],
                    running: running[i],
                    has_waiting: waiting[i] > 0,
                })
                .collect();
            let Some(change) = next_slot_change(&demands, slots) else { return changes };
            match change {
                SlotChange::Admit(i) => (running[i], waiting[i]) = (running[i] + 1, waiting[i] - 1),
                SlotChange::Preempt(i) => (running[i], waiting[i]) = (running[i] - 1, waiting[i] + 1),
            }
            changes.push(change);
            assert!(running.iter().sum::<usize>() <= slots && changes.len() < 100);
        }
    }

    #[test]
    fn slots_are_allotted_round_robin_in_order_of_arrival() {
        let (mut running, mut waiting) = ([0, 0, 0], [100, 1, 100]);
        let changes = apply_all(&mut running, &mut waiting, 4);
        let admitted = [0, 1, 2, 0].map(SlotChange::Admit);
        assert_eq!(changes, admitted);
        let (mut running, mut waiting) = ([0; 5], [1; 5]);
        apply_all(&mut running, &mut waiting, 3);
        assert_eq!(running, [1, 1, 1, 0, 0]);
    }

    #[test]
    fn request_with_many_slots_is_preempted_and_one_with_a_single_slot_is_not() {
        let (mut running, mut waiting) = ([16, 0], [84, 1]);
        let changes = apply_all(&mut running, &mut waiting, 16);
        assert_eq!(changes, [SlotChange::Preempt(0), SlotChange::Admit(1)]);
        assert_eq!(running, [15, 1]);
        let (mut running, mut waiting) = ([16, 0, 0], [84, 100, 1]);
        apply_all(&mut running, &mut waiting, 16);
        assert_eq!((running, waiting), ([8, 7, 1], [92, 93, 0]));
        let (mut running, mut waiting) = ([1, 1, 0], [5, 0, 1]);
        assert_eq!(apply_all(&mut running, &mut waiting, 2), []);
    }

    #[test]
    fn live_requests_take_the_slots_of_low_ones_and_are_never_preempted_for_them() {
        use Priority::{Live, Low};
        let (mut running, mut waiting) = ([1, 2, 0], [0, 5, 1]);
        let changes = apply_with(&[Low, Low, Live], &mut running, &mut waiting, 3);
        assert_eq!(changes, [SlotChange::Preempt(1), SlotChange::Admit(2)]);
        // It takes all of them, and the low ones come back when it has no more sequences.
        let (mut running, mut waiting) = ([1, 1, 1], [0, 5, 9]);
        apply_with(&[Low, Low, Live], &mut running, &mut waiting, 3);
        assert_eq!((running, waiting), ([0, 0, 3], [1, 6, 7]));
        let (mut running, mut waiting) = ([0, 0, 3], [1, 6, 0]);
        assert_eq!(apply_with(&[Low, Low, Live], &mut running, &mut waiting, 3), []);
        running[2] = 1;
        apply_with(&[Low, Low, Live], &mut running, &mut waiting, 3);
        assert_eq!((running, waiting), ([1, 1, 1], [0, 5, 0]));
        // Free slots go to live requests first, whatever their order of arrival.
        let (mut running, mut waiting) = ([0, 0], [1, 1]);
        let changes = apply_with(&[Low, Live], &mut running, &mut waiting, 2);
        assert_eq!(changes, [SlotChange::Admit(1), SlotChange::Admit(0)]);
    }

    fn unscored(uncomputed: usize) -> TokenDemand {
        TokenDemand { priority: Priority::Live, uncomputed, scored: false }
    }

    #[test]
    fn prefilling_sequences_share_the_chunk_and_short_prompts_leave_theirs_to_long_ones() {
        let demands = [unscored(1), unscored(500), unscored(1), unscored(10)];
        assert_eq!(schedule_tokens(&demands, 64, 0), [1, 54, 1, 10]);
        assert_eq!(schedule_tokens(&[unscored(500), unscored(500), unscored(1)], 64, 3), [32, 32, 1]);
        assert_eq!(schedule_tokens(&[unscored(3), unscored(2)], 64, 0), [3, 2]);
        assert_eq!(schedule_tokens(&[unscored(1); 5], 1, 7), [1; 5]);
    }

    #[test]
    fn short_prompts_are_finished_first_and_leave_half_to_long_ones() {
        let mut demands = [unscored(300); 8];
        (demands[0], demands[7]) = (unscored(1), unscored(8));
        assert_eq!(schedule_tokens(&demands, 32, 0), [1, 4, 4, 4, 4, 4, 4, 8]);
        demands[3..].fill(unscored(8));
        assert_eq!(schedule_tokens(&demands, 32, 0), [1, 4, 3, 8, 8, 3, 3, 3]);
    }

    #[test]
    fn a_prompt_alone_has_a_larger_chunk() {
        assert_eq!(schedule_tokens(&[unscored(500)], 32, 0), [128]);
        assert_eq!(schedule_tokens(&[unscored(500), unscored(500)], 32, 0), [16, 16]);
        assert_eq!(schedule_tokens(&[unscored(500)], 100, 0), [PREFILL_CHUNK]);
        assert_eq!(schedule_tokens(&[unscored(500)], usize::MAX, 0), [500]);
    }

    #[test]
    fn prompts_of_low_priority_get_the_budget_that_live_ones_leave() {
        let low = |uncomputed| TokenDemand { priority: Priority::Low, ..unscored(uncomputed) };
        assert_eq!(schedule_tokens(&[low(500), unscored(40), low(1)], 64, 0), [24, 40, 1]);
        assert_eq!(schedule_tokens(&[low(500), unscored(400), low(1)], 64, 1), [0, 64, 1]);
    }

    #[test]
    fn budget_below_one_token_each_rotates_between_sequences() {
        let mut total = [0; 3];
        for step in 0..9 {
            let demands = [unscored(50), unscored(50), unscored(50), unscored(1)];
            let scheduled = schedule_tokens(&demands, 1, step);
            assert_eq!(scheduled.iter().sum::<usize>(), 2);
            total.iter_mut().zip(scheduled).for_each(|(total, n)| *total += n);
        }
        assert_eq!(total, [3; 3]);
    }

    #[test]
    fn scored_tokens_are_limited_and_leave_budget_to_others() {
        let scored = |uncomputed| TokenDemand { scored: true, ..unscored(uncomputed) };
        assert_eq!(schedule_tokens(&[scored(500)], 64, 0), [32]);
        let decode = unscored(1);
        assert_eq!(
            schedule_tokens(&[scored(500), unscored(500), scored(500), decode], 64, 0),
            [16, 32, 16, 1]
        );
        assert_eq!(schedule_tokens(&[scored(500), decode], 7, 0), [7, 1]);
    }
}
