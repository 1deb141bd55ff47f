//! No repeated n-grams: bans tokens that would complete an n-gram already present in prompt and completion.
//!
//! Paulus et al. 2017, section 2.5; transformers' `NoRepeatNGramLogitsProcessor`. Every window of `n` tokens
//! whose first `n - 1` tokens equal the last `n - 1` of the history bans its last token; with `n = 1` every
//! past token is banned.

/// Sets the logits of banned tokens to negative infinity. Compares up to `n - 1` tokens at each position of
/// the history.
pub fn ban_repeated_ngrams(logits: &mut [f32], n: usize, prompt: &[u32], generated: &[u32]) {
    let len = prompt.len() + generated.len();
    if n == 0 || len < n {
        return;
    }
    let token = |i: usize| match i.checked_sub(prompt.len()) {
        Some(i) => generated[i],
        None => prompt[i],
    };
    let prefix = len + 1 - n; // start of the n-gram that the next token would complete
    for end in n - 1..len {
        // Backward, since the last token differs most often.
        if (1..n).all(|back| token(end - back) == token(prefix + n - 1 - back))
            && let Some(logit) = logits.get_mut(token(end) as usize)
        {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn banned(n: usize, prompt: &[u32], generated: &[u32]) -> Vec<u32> {
        let mut logits = [0.0; 4];
        ban_repeated_ngrams(&mut logits, n, prompt, generated);
        (0..4).filter(|&id| logits[id as usize] < 0.0).collect()
    }

    #[test]
    fn token_completing_seen_ngram_is_banned() {
        assert_eq!(banned(2, &[1, 2, 3], &[0, 1]), [2]);
        assert_eq!(banned(3, &[1, 2, 3, 1], &[2]), [3]);
        assert_eq!(banned(1, &[1], &[3]), [1, 3]);
        assert_eq!(banned(0, &[1], &[1, 1]), [0; 0]);
        assert_eq!(banned(6, &[1, 2], &[1, 2, 1]), [0; 0]);
    }

    proptest! {
        /// The definition: a token is banned if appending it would repeat an n-gram.
        #[test]
        fn banned_tokens_match_definition(
            history in prop::collection::vec(0u32..4, 0..24),
            prompt_len in any::<prop::sample::Index>(),
            n in 1usize..5,
        ) {
            let (prompt, generated) = history.split_at(prompt_len.index(history.len() + 1));
            let expected: Vec<u32> = (0..4).filter(|&next| {
                let mut longer = history.clone();
                longer.push(next);
                longer.len() > n && longer[..history.len()].windows(n).any(|w| longer.ends_with(w))
            }).collect();
            prop_assert_eq!(banned(n, prompt, generated), expected);
        }
    }
}
