//! Who takes part in the next pass, and with how much.
//!
//! Seats are given out in turns between *requests*: the next free one goes to the request that has the fewest, and among
//! those to the one that came first. Where none is free, a request that has two more than another gives one up; its
//! sequence goes on later from what it has computed. So a request of a hundred completions fills every seat while it is
//! alone, and does not keep the next one waiting.

/// A change of seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// This request's next sequence sits down.
    Sit(usize),
    /// This request's last sequence gets up.
    Rise(usize),
}

/// A request, as far as seats go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Seats it has.
    pub(super) seated: usize,
    /// Whether a sequence of it could sit down.
    pub(super) waits: bool,
}

/// The next change; none where everyone has what is due. `claims` are in the order the requests came.
pub(super) fn next_move(claims: &[Claim], seats: usize) -> Option<Move> {
    let waiting = claims.iter().enumerate().filter(|(_, claim)| claim.waits);
    let (poorest, fewest) = waiting.min_by_key(|(_, claim)| claim.seated)?;
    if claims.iter().map(|claim| claim.seated).sum::<usize>() < seats {
        return Some(Move::Sit(poorest));
    }
    let (richest, most) = claims.iter().enumerate().max_by_key(|(_, claim)| claim.seated)?;
    (most.seated >= fewest.seated + 2).then_some(Move::Rise(richest))
}

/// The most tokens of a pass that are scored: their logits take far more memory than they do.
const SCORED: usize = 32;

/// A seated sequence, as far as tokens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Tokens not yet computed, at least one.
    pub(super) left: usize,
    /// Whether they are to be scored.
    pub(super) scored: bool,
}

/// The tokens each sequence puts into the pass. Those that wait for one token get it; the others share `chunk` tokens,
/// dealt one by one, beginning with another sequence each `turn`.
pub(super) fn deal(needs: &[Need], chunk: usize, turn: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = needs.iter().map(|need| usize::from(need.left == 1)).collect();
    let reading: Vec<usize> = (0..needs.len()).filter(|&i| needs[i].left > 1).collect();
    let (mut rest, mut scored) = (chunk, 0);
    let mut dealt = true;
    while dealt {
        dealt = false;
        for i in (0..reading.len()).map(|i| reading[(i + turn) % reading.len()]) {
            let Need { left, scored: scores } = needs[i];
            if rest > 0 && shares[i] < left && !(scores && scored == SCORED) {
                shares[i] += 1;
                rest -= 1;
                scored += usize::from(scores);
                dealt = true;
            }
        }
    }
    shares
}
