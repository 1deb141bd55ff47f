//! Where a text reaches the end of the model's context.
//!
//! GPT-2 has learnt a vector for each place a token may stand at, `n_positions` of them, and adds it to the token before
//! the first block. All that a token leaves in the KV cache is made from that sum, in every layer, and cannot be moved
//! to another place. (Where positions are rotations, as in LLaMA, cached keys can be turned back.) So a text either ends
//! with the context, or its last half is read again as if it began there, and what was before is forgotten:
//!
//! ```text
//! position   0 ──────────── n/2 ──────────── n
//! full       a b c d e f g h i j k l m n o p      and then comes q
//! shifted    j k l m n o p q …
//! ```
//!
//! So every token is computed about twice, the second time with half a context of others in one pass.

/// What is done where a text reaches the end of the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Context {
    /// It ends there. A prompt that is longer is refused.
    #[default]
    Stop,
    /// Its last half is read again from its beginning, and it goes on; a prompt that is longer begins so. Penalties still
    /// count all tokens.
    Shift,
}

/// The part of a text that the model has before it.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Where it begins.
    pub(super) start: usize,
    n_positions: usize,
}

impl Window {
    /// Of a text of `len` tokens.
    pub(super) fn new(n_positions: usize, len: usize) -> Self {
        let mut window = Self { start: 0, n_positions };
        window.reach(len);
        window
    }

    /// Moves on where a text of `len` tokens has outgrown it.
    pub(super) fn reach(&mut self, len: usize) {
        if len - self.start > self.n_positions {
            self.start = len - (self.n_positions / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_full_context_is_left() {
        for (n_positions, starts) in [(4, [0, 0, 0, 0, 3, 3, 3, 6]), (1, [0, 1, 2, 3, 4, 5, 6, 7])] {
            let mut window = Window::new(n_positions, 1);
            let found: Vec<usize> = (1..=8)
                .map(|len| {
                    window.reach(len);
                    window.start
                })
                .collect();
            assert_eq!(found, starts, "{n_positions}");
        }
        assert_eq!(Window::new(6, 6).start, 0);
        assert_eq!(Window::new(6, 100).start, 97);
    }
}
