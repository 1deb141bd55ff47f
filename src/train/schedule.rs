//! The learning rate from the first step to the last.

use serde::{Deserialize, Serialize};

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Linearly to zero, in the last steps: WSD, "warmup-stable-decay" (Hu et al. 2024, MiniCPM).
    #[default]
    Wsd,
    /// Along half a cosine from the first step after the warm-up to a tenth in the last (Loshchilov and
    /// Hutter 2017, with the tenth of GPT-3's authors).
    Cosine,
}

/// Warm-up, then a plateau and a fall, or a long fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How the rate falls.
    pub decay: Decay,
    /// Steps of the warm-up.
    pub warmup: u32,
    /// Steps of the linear fall.
    pub decay_steps: u32,
    /// Steps in all.
    pub steps: u32,
}

impl Schedule {
    /// The learning rate of step `t`, counted from 1, as a part of the highest.
    ///
    /// ```text
    /// wsd:     min(1, t / warmup, (steps + 1 − t) / (decay_steps + 1))
    /// cosine:  min(t / warmup, 0.1 + 0.9 · (1 + cos(π · (t − warmup) / (steps − warmup))) / 2)
    /// ```
    pub fn factor(&self, t: u32) -> f32 {
        let t = t.min(self.steps);
        let warmup = f64::from(t) / f64::from(self.warmup.max(1));
        let rest = match self.decay {
            Decay::Wsd => f64::from(self.steps + 1 - t) / (f64::from(self.decay_steps) + 1.0),
            Decay::Cosine => {
                let done = f64::from(t.saturating_sub(self.warmup));
                let part = done / f64::from(self.steps.saturating_sub(self.warmup).max(1));
                0.1 + 0.9 * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * part))
            }
        };
        warmup.min(rest).min(1.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: Schedule) -> Vec<f32> {
        (1..=schedule.steps).map(|t| schedule.factor(t)).collect()
    }

    #[test]
    fn rate_rises_stays_and_falls() {
        let schedule = Schedule { decay: Decay::Wsd, warmup: 4, decay_steps: 3, steps: 12 };
        let expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25];
        assert_eq!(factors(schedule), expected);
        assert_eq!(factors(Schedule { warmup: 0, decay_steps: 0, ..schedule }), [1.0; 12]);
    }

    #[test]
    fn cosine_falls_to_a_tenth() {
        let schedule = Schedule { decay: Decay::Cosine, warmup: 2, decay_steps: 0, steps: 10 };
        let found = factors(schedule);
        assert_eq!(found[..2], [0.5, 1.0]);
        assert!((found[5] - 0.55).abs() < 1e-6 && (found[9] - 0.1).abs() < 1e-6, "{found:?}");
        assert!(found[1..].is_sorted_by(|a, b| a > b), "{found:?}");
    }
}
