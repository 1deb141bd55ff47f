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

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves until nobody moves; sequences that wait, for each request.
    fn settle(seated: &mut [usize], waiting: &mut [usize], seats: usize) -> Vec<Move> {
        let mut moves = vec![];
        loop {
            let claims: Vec<Claim> =
                seated.iter().zip(&*waiting).map(|(&seated, &w)| Claim { seated, waits: w > 0 }).collect();
            let Some(next) = next_move(&claims, seats) else { return moves };
            match next {
                Move::Sit(i) => (seated[i], waiting[i]) = (seated[i] + 1, waiting[i] - 1),
                Move::Rise(i) => (seated[i], waiting[i]) = (seated[i] - 1, waiting[i] + 1),
            }
            moves.push(next);
            assert!(seated.iter().sum::<usize>() <= seats && moves.len() < 100);
        }
    }

    #[test]
    fn requests_take_turns_and_those_that_came_first_begin() {
        let (mut seated, mut waiting) = ([0, 0, 0], [100, 1, 100]);
        let moves = settle(&mut seated, &mut waiting, 4);
        assert_eq!(moves, [Move::Sit(0), Move::Sit(1), Move::Sit(2), Move::Sit(0)]);
        let (mut seated, mut waiting) = ([0; 5], [1; 5]);
        settle(&mut seated, &mut waiting, 3);
        assert_eq!(seated, [1, 1, 1, 0, 0]);
    }

    #[test]
    fn who_has_many_seats_gives_some_up_and_nobody_the_only_one() {
        let (mut seated, mut waiting) = ([16, 0], [84, 1]);
        assert_eq!(settle(&mut seated, &mut waiting, 16), [Move::Rise(0), Move::Sit(1)]);
        assert_eq!(seated, [15, 1]);
        let (mut seated, mut waiting) = ([16, 0, 0], [84, 100, 1]);
        settle(&mut seated, &mut waiting, 16);
        assert_eq!((seated, waiting), ([8, 7, 1], [92, 93, 0]));
        let (mut seated, mut waiting) = ([1, 1, 0], [5, 0, 1]);
        assert_eq!(settle(&mut seated, &mut waiting, 2), []);
    }

    fn plain(left: usize) -> Need {
        Need { left, scored: false }
    }

    #[test]
    fn prompts_share_a_pass_and_the_rest_of_a_short_one_goes_to_the_long() {
        assert_eq!(deal(&[plain(1), plain(500), plain(1), plain(10)], 64, 0), [1, 54, 1, 10]);
        assert_eq!(deal(&[plain(500), plain(500)], 64, 3), [32, 32]);
        assert_eq!(deal(&[plain(3), plain(2)], 64, 0), [3, 2]);
        assert_eq!(deal(&[plain(1); 5], 1, 7), [1; 5]);
    }

    #[test]
    fn with_less_than_a_token_each_it_goes_round() {
        let mut total = [0; 3];
        for turn in 0..9 {
            let shares = deal(&[plain(50); 3], 1, turn);
            assert_eq!(shares.iter().sum::<usize>(), 1);
            total.iter_mut().zip(shares).for_each(|(total, n)| *total += n);
        }
        assert_eq!(total, [3; 3]);
    }

    #[test]
    fn scored_tokens_are_few_and_leave_room_for_others() {
        let scored = |left| Need { left, scored: true };
        assert_eq!(deal(&[scored(500)], 64, 0), [32]);
        assert_eq!(deal(&[scored(500), plain(500), scored(500)], 64, 0), [16, 32, 16]);
        assert_eq!(deal(&[scored(500)], 7, 0), [7]);
    }
}
