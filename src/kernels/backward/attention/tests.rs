//! The gradients against finite differences and against the reference.

use super::*;
use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f32, to_f64};
use std::slice::from_ref;

/// One head of attention in f64: `[n, head_dim]`.
fn forward(q: &[f64], k: &[f64], v: &[f64], head_dim: usize, scale: f64) -> Vec<f64> {
    let mut out = vec![0.0; q.len()];
    for (i, (q, out)) in q.chunks(head_dim).zip(out.chunks_mut(head_dim)).enumerate() {
        let score = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * scale;
        let e: Vec<f64> = k.chunks(head_dim).take(i + 1).map(|k| libm::exp(score(k))).collect();
        let sum: f64 = e.iter().sum();
        for (e, v) in e.iter().zip(v.chunks(head_dim)) {
            out.iter_mut().zip(v).for_each(|(out, v)| *out += e / sum * v);
        }
    }
    out
}

#[test]
fn reference_is_the_derivative_of_attention() {
    for (n, head_dim) in [(2, 1), (3, 4), (6, 5)] {
        let [q, k, v, dout] = [1, 2, 3, 4].map(|seed| random_values(seed, n * head_dim));
        let rows = [&q, &k, &v].map(|x| Rows::dense(x, head_dim));
        let (expected, _) = crate::attention::reference(rows[0], rows[1], rows[2], 0.7);
        let [q, k, v, dout] = [q, k, v, dout].map(|x| to_f64(&x));
        let scale = f64::from(0.7f32);
        assert_relative(&to_f32(&forward(&q, &k, &v, head_dim, scale)), &expected, 1e-7);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            forward(q, k, v, head_dim, scale).iter().zip(&dout).map(|(out, dout)| out * dout).sum()
        };
        let Gradients { dq, dk, dv } = reference(&q, &k, &v, &dout, head_dim, scale);
        assert_gradient(|q| loss(q, &k, &v), &q, &dq);
        assert_gradient(|k| loss(&q, k, &v), &k, &dk);
        assert_gradient(|v| loss(&q, &k, v), &v, &dv);
    }
}

/// Asserts for one batch that every instruction set and thread count gives the same bits, and that these are
/// close to the reference.
fn assert_matches_reference(sequences: &[Range<usize>], n_head: usize, head_dim: usize, magnitude: f32) {
    let (n_embd, scale) = (n_head * head_dim, 1.0 / (head_dim as f32).sqrt());
    let n_tokens = sequences.iter().map(|rows| rows.end).max().unwrap();
    let mut qkv = random_values(1, n_tokens * 3 * n_embd);
    qkv.iter_mut().for_each(|x| *x *= magnitude);
    let dout = random_values(2, n_tokens * n_embd);
    let of_head = |x: &[f32], width: usize, rows: &Range<usize>, column: usize| -> Vec<f64> {
        let rows = Rows::dense(x, width).row_range(rows.start, rows.len()).columns(column, head_dim);
        (0..rows.len()).flat_map(|t| to_f64(rows.row(t))).collect()
    };
    let heads: Vec<(Range<usize>, usize)> =
        sequences.iter().flat_map(|rows| (0..n_head).map(|head| (rows.clone(), head * head_dim))).collect();
    let [mut out, mut untouched] = [vec![0.0; n_tokens * n_embd], vec![7.0; n_tokens * 3 * n_embd]];
    for (rows, column) in &heads {
        let [q, k, v] = [0, 1, 2].map(|part| of_head(&qkv, 3 * n_embd, rows, part * n_embd + column));
        let head = forward(&q, &k, &v, head_dim, f64::from(scale));
        for (t, head) in rows.clone().zip(head.chunks(head_dim)) {
            out[t * n_embd + column..][..head_dim].copy_from_slice(&to_f32(head));
        }
    }
    let gradients = assert_same_bits(|pool| {
        let mut dqkv = vec![7.0; n_tokens * 3 * n_embd];
        let (qkv, dqkv_rows) = (Rows::dense(&qkv, 3 * n_embd), RowsMut::dense(&mut dqkv, 3 * n_embd));
        let [out, dout] = [&out, &dout].map(|x| Rows::dense(x, n_embd));
        attention(pool, Batch { sequences, n_head, scale }, qkv, out, dout, dqkv_rows);
        dqkv
    });
    for (rows, column) in &heads {
        let [q, k, v] = [0, 1, 2].map(|part| of_head(&qkv, 3 * n_embd, rows, part * n_embd + column));
        let dout = of_head(&dout, n_embd, rows, *column);
        let expected = reference(&q, &k, &v, &dout, head_dim, f64::from(scale));
        for (part, expected) in [expected.dq, expected.dk, expected.dv].iter().enumerate() {
            let found = of_head(&gradients, 3 * n_embd, rows, part * n_embd + column);
            if rows.len() > 1 {
                assert_relative(&to_f32(&found), expected, 1e-5);
            }
        }
        rows.clone().for_each(|t| untouched[t * 3 * n_embd..][..3 * n_embd].fill(0.0));
    }
    assert!(untouched.iter().zip(&gradients).all(|(untouched, found)| *untouched == 0.0 || *found == 7.0));
}

#[test]
fn gradients_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
    for head_dim in [1, 8, 16, 20, 48, 64] {
        for n in [1, 2, 15, 16, 17, 83, 85] {
            assert_matches_reference(from_ref(&(0..n)), 2, head_dim, 1.0);
        }
    }
    assert_matches_reference(from_ref(&(0..300)), 1, 16, 1.0);
}

#[test]
fn sequences_of_any_length_and_order_match_reference() {
    assert_matches_reference(&[40..57, 0..33, 33..33, 60..61, 64..200], 3, 12, 3.0);
}
