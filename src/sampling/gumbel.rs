//! Drawing one token by the Gumbel-max trick: add noise from the Gumbel distribution to the log probability
//! of every token, and take the largest sum. What is drawn has exactly the given probabilities (Gumbel 1954;
//! Maddison, Tarlow and Minka 2014).
//!
//! ```text
//! token = argmax_i  ln p[i] + g[i],   g[i] = −ln(−ln u[i]),   u[i] uniform in (0, 1)
//! ```
//!
//! The noise is a function of the draw's key and the token's id alone. So two distributions that differ a
//! little, such as those of a model in f32 and in int4, mostly give the same token with the same noise: in at
//! least (1 − d) / (1 + d) of draws, where d is their total variation distance (Daliri, Musco and
//! Suresh 2024). A point in the cumulative distribution, the usual way to draw, would shift with every
//! probability before it.
//!
//! The same comparison without a logarithm per token is a race of exponential times: `−ln u[i]` is
//! exponential, and the smallest `−ln(u[i]) / p[i]` has the largest sum. As `−ln(1 − v) ≥ v`, a token whose
//! `v[i] = 1 − u[i]` is above `p[i]` times the second best time so far is not among the first two, before its
//! logarithm is taken. Only about as many logarithms are taken as these change. The probabilities need not
//! sum to 1.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, Simd};

/// Candidates compared together, as many as fit into a few vector registers.
const BLOCK: usize = 16;

/// The noise of one draw.
#[derive(Clone, Copy, Debug)]
pub struct Noise([u32; 2]);

impl Noise {
    /// The noise of a random key.
    pub fn new(key: u64) -> Self {
        Self([key as u32, (key >> 32) as u32])
    }

    /// The upper 32 bits of a token's v.
    #[inline(always)]
    fn high(self, id: u32) -> u32 {
        mix(mix(id ^ self.0[0]).wrapping_add(self.0[1]))
    }

    /// A token's v: uniform in (0, 1), and independent of the other tokens'.
    fn uniform(self, id: u32) -> f64 {
        let (high, low) = (self.high(id), mix(mix(id ^ !self.0[1]).wrapping_add(self.0[0])));
        let bits = (u64::from(high) << 32) | u64::from(low);
        ((bits as f64 + 0.5) * (1.0 / 18_446_744_073_709_551_616.0)).min(1.0 - f64::EPSILON / 2.0)
    }

    /// A token's time in the race, `−ln(1 − v) / weight`.
    fn time(self, id: u32, weight: f32) -> f64 {
        -libm::log1p(-self.uniform(id)) / f64::from(weight)
    }
}

/// An invertible function whose every output bit depends on every input bit (`lowbias32`, Wellons 2018,
/// <https://nullprogram.com/blog/2018/07/31/>).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub id: u32,
    /// How much larger its sum is than the next, in nats; infinite without another candidate. With a large
    /// margin, another distribution that differs a little draws the same token.
    pub margin: f32,
}

/// Draws one of the tokens `ids` with probabilities proportional to `weights`, which are from 0 to 1; `None`
/// if all are 0. Both are `[candidates]`.
pub fn draw(noise: Noise, ids: &[u32], weights: &[f32]) -> Option<Drawn> {
    Isa::of_process().run(Draw { noise, ids, weights })
}

struct Draw<'a> {
    noise: Noise,
    ids: &'a [u32],
    weights: &'a [f32],
}

impl Kernel for Draw<'_> {
    type Output = Option<Drawn>;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Option<Drawn> {
        let Self { noise, ids, weights } = self;
        let (mut winner, mut best) = (None, f64::INFINITY);
        let mut race = |ids: &[u32], weights: &[f32], second: &mut f64| {
            for (&id, &weight) in ids.iter().zip(weights).filter(|(_, weight)| **weight > 0.0) {
                let time = noise.time(id, weight);
                if time < best {
                    (*second, best, winner) = (best, time, Some(id));
                } else if time < *second {
                    *second = time;
                }
            }
        };
        let mut second = f64::INFINITY;
        let ((id_blocks, last_ids), (weight_blocks, last_weights)) =
            (ids.as_chunks::<BLOCK>(), weights.as_chunks::<BLOCK>());
        for (ids, weights) in id_blocks.iter().zip(weight_blocks) {
            // A little above the second time, so that rounding never excludes one of the first two.
            let limit = second as f32 * (1.0 + 1e-6);
            let mut may_place = false;
            for i in 0..BLOCK {
                // The upper 24 bits of v: at most v, and exact in f32.
                let lower_bound = (noise.high(ids[i]) >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
                may_place |= lower_bound < limit * weights[i];
            }
            if may_place {
                race(ids, weights, &mut second);
            }
        }
        race(last_ids, last_weights, &mut second);
        winner.map(|id| Drawn { id, margin: libm::log(second / best) as f32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// The formula.
    fn reference(noise: Noise, ids: &[u32], weights: &[f32]) -> Option<Drawn> {
        let gumbel = |id: u32| -libm::log(-libm::log1p(-noise.uniform(id)));
        let sum = |(&id, &weight): (&u32, &f32)| (libm::log(f64::from(weight)) + gumbel(id), id);
        let mut sums: Vec<_> =
            ids.iter().zip(weights).filter(|(_, weight)| **weight > 0.0).map(sum).collect();
        sums.sort_by(|a, b| b.0.total_cmp(&a.0));
        let second = sums.get(1).map_or(f64::NEG_INFINITY, |second| second.0);
        sums.first().map(|&(best, id)| Drawn { id, margin: (best - second) as f32 })
    }

    fn keys(n: usize) -> impl Iterator<Item = Noise> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..n).map(move |_| Noise::new(rng.next_u64()))
    }

    proptest! {
        #[test]
        fn draw_is_that_of_the_formula_on_every_isa(
            key in any::<u64>(),
            weights in prop::collection::vec(prop_oneof![Just(0.0f32), 1e-9f32..=1.0, 1e-3f32..=1.0], 0..200),
        ) {
            let ids: Vec<u32> = (0..weights.len() as u32).map(|i| i * 251).collect();
            let noise = Noise::new(key);
            let expected = reference(noise, &ids, &weights);
            for isa in Isa::available() {
                let drawn = isa.run(Draw { noise, ids: &ids, weights: &weights });
                prop_assert_eq!(drawn.map(|drawn| drawn.id), expected.map(|expected| expected.id));
                let margins = drawn.zip(expected).map(|(drawn, expected)| (drawn.margin, expected.margin));
                prop_assert!(margins.is_none_or(|(a, b)| a == b || (a - b).abs() < 1e-5), "{margins:?}");
            }
        }
    }

    /// Chi-squared with 63 degrees of freedom: 103.4 is exceeded with probability 0.001. The keys are fixed.
    #[test]
    fn noise_is_uniform_over_tokens_and_over_draws() {
        let chi_squared = |values: &mut dyn Iterator<Item = f64>| {
            let mut counts = [0f64; 64];
            values.for_each(|v| counts[(v * 64.0) as usize] += 1.0);
            let expected = counts.iter().sum::<f64>() / 64.0;
            counts.iter().map(|count| (count - expected).powi(2) / expected).sum::<f64>()
        };
        let one = Noise::new(0);
        let of_tokens = chi_squared(&mut (0..50_257).map(|id| one.uniform(id)));
        let of_draws = chi_squared(&mut keys(50_000).map(|noise| noise.uniform(13)));
        // The lower bits, and whether neighbours depend on each other.
        let of_low_bits =
            chi_squared(&mut keys(50_000).map(|noise| (noise.uniform(13) * 4_294_967_296.0).fract()));
        let fraction = |v: f64| v - v.floor();
        let of_neighbours =
            chi_squared(&mut (0..50_000).map(|id| fraction(one.uniform(id + 1) - one.uniform(id) + 1.0)));
        for value in [of_tokens, of_draws, of_low_bits, of_neighbours] {
            assert!(value < 103.4, "{value}");
        }
    }

    #[test]
    fn similar_distributions_share_most_draws() {
        let p: Vec<f32> = (1..=400u32).map(|i| 1.0 / i as f32).collect();
        let q: Vec<f32> = p.iter().enumerate().map(|(i, p)| p * [0.8, 1.0, 0.9][i % 3]).collect();
        let (sum_p, sum_q): (f32, f32) = (p.iter().sum(), q.iter().sum());
        let distance: f32 = p.iter().zip(&q).map(|(p, q)| (p / sum_p - q / sum_q).abs()).sum::<f32>() / 2.0;
        let ids: Vec<u32> = (0..400).collect();
        let n = 10_000;
        let id = |noise, weights: &[f32]| draw(noise, &ids, weights).unwrap().id;
        let shared = keys(n).filter(|noise| id(*noise, &p) == id(*noise, &q)).count();
        let bound = (1.0 - distance) / (1.0 + distance);
        assert!(shared as f32 / n as f32 > bound - 0.01, "{shared} of {n}, expected at least {bound}");
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        assert_eq!(draw(Noise::new(3), &[], &[]), None);
        assert_eq!(draw(Noise::new(3), &[1; 40], &[0.0; 40]), None);
        let only = Drawn { id: 5, margin: f32::INFINITY };
        assert_eq!(draw(Noise::new(3), &[4, 5], &[0.0, 1e-9]), Some(only));
    }
}
