//! Hard constraints: the tokens that a completion may consist of, and the words that it may not contain.
//!
//! - *Bad words* (transformers' `bad_words_ids`, vLLM's `bad_words`): the last token of a sequence is banned
//!   where the completion ends with the others. A sequence of one token is always banned.
//! - *Allowed tokens* (vLLM's `allowed_token_ids`): all others are banned.
//!
//! Token ids outside the logits are ignored.

/// Bans the last token of each sequence whose other tokens end `generated`.
pub fn ban_bad_words(logits: &mut [f32], bad_words_ids: &[Vec<u32>], generated: &[u32]) {
    for ids in bad_words_ids {
        if let Some((&last, start)) = ids.split_last()
            && generated.ends_with(start)
            && let Some(logit) = logits.get_mut(last as usize)
        {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Bans all tokens but those in `allowed`, whose ids ascend; an empty list allows all.
pub fn ban_all_but(logits: &mut [f32], allowed: &[u32]) {
    if allowed.is_empty() {
        return;
    }
    let mut start = 0;
    for &id in allowed {
        let end = (id as usize).min(logits.len());
        logits[start..end].fill(f32::NEG_INFINITY);
        start = (end + 1).min(logits.len());
    }
    logits[start..].fill(f32::NEG_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(logits: &[f32]) -> Vec<usize> {
        (0..logits.len()).filter(|&i| logits[i] == 0.0).collect()
    }

    #[test]
    fn bad_word_is_banned_where_it_would_be_complete() {
        let bad_words = [vec![3], vec![1, 2], vec![1, 1, 0], vec![9], vec![]];
        for (generated, expected) in [
            (&[][..], &[0, 1, 2, 4][..]),
            (&[1], &[0, 1, 4]),
            (&[2, 1, 1], &[1, 4]),
            (&[1, 1, 2], &[0, 1, 2, 4]),
        ] {
            let mut logits = [0.0; 5];
            ban_bad_words(&mut logits, &bad_words, generated);
            assert_eq!(allowed(&logits), expected, "{generated:?}");
        }
    }

    #[test]
    fn all_tokens_but_the_allowed_are_banned() {
        for (ids, expected) in [
            (&[][..], &[0, 1, 2, 3, 4][..]),
            (&[0, 1, 4], &[0, 1, 4]),
            (&[2, 9], &[2]),
            (&[3], &[3]),
            (&[8, 9], &[]),
        ] {
            let mut logits = [0.0; 5];
            ban_all_but(&mut logits, ids);
            assert_eq!(allowed(&logits), expected, "{ids:?}");
        }
    }
}
