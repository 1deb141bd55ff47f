//! Context shift: continuing a text beyond the model's context.
//!
//! GPT-2 learns an absolute position embedding for each of `n_positions` positions and adds it to the token
//! embedding before the first block. Every key and value in the KV cache depends on that sum and cannot be
//! moved to another position. (With rotary embeddings, as in LLaMA, cached keys can be rotated back.) So a
//! text either stops at the end of the context, or its last half is recomputed as if it started there, and
//! the tokens before are discarded:
//!
//! ```text
//! position   0 ──────────── n/2 ──────────── n
//! full       a b c d e f g h i j k l m n o p      and q follows
//! shifted    j k l m n o p q …
//! ```
//!
//! Each token is thus computed about twice, the second time with half a context of others in one pass.

/// Policy for a text that reaches the end of the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextPolicy {
    /// The text ends. A longer prompt is an error.
    #[default]
    Stop,
    /// Context shift: the text continues from its last half; a longer prompt starts that way. Penalties still
    /// count all tokens.
    Shift,
}

/// The last tokens of a text, which the model attends to.
#[derive(Clone, Debug)]
pub(super) struct ContextWindow {
    /// Index of the window's first token in the text.
    pub(super) start: usize,
    n_positions: usize,
}

impl ContextWindow {
    /// The window of a text of `len` tokens.
    pub(super) fn new(n_positions: usize, len: usize) -> Self {
        let mut window = Self { start: 0, n_positions };
        window.shift_to_fit(len);
        window
    }

    /// Shifts if a text of `len` tokens does not fit.
    pub(super) fn shift_to_fit(&mut self, len: usize) {
        if len - self.start > self.n_positions {
            self.start = len - (self.n_positions / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_context_window_keeps_its_last_half() {
        for (n_positions, starts) in [(4, [0, 0, 0, 0, 3, 3, 3, 6]), (1, [0, 1, 2, 3, 4, 5, 6, 7])] {
            let mut window = ContextWindow::new(n_positions, 1);
            let actual: Vec<usize> = (1..=8)
                .map(|len| {
                    window.shift_to_fit(len);
                    window.start
                })
                .collect();
            assert_eq!(actual, starts, "{n_positions}");
        }
        assert_eq!(ContextWindow::new(6, 6).start, 0);
        assert_eq!(ContextWindow::new(6, 100).start, 97);
    }
}
