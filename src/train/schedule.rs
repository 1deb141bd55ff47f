//! The learning rate from the first step to the last.

/// Warm-up, a plateau, and a linear fall to zero: WSD, "warmup-stable-decay" (Hu et al. 2024, MiniCPM).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate of the plateau.
    pub learning_rate: f32,
    /// Steps of the warm-up.
    pub warmup: u32,
    /// Steps of the fall.
    pub decay: u32,
    /// Steps in all.
    pub steps: u32,
}

impl Schedule {
    /// The learning rate of step `t`, counted from 1.
    ///
    /// ```text
    /// lr(t) = lr · min(1, t / warmup, (steps + 1 − t) / (decay + 1))
    /// ```
    pub fn learning_rate(&self, t: u32) -> f32 {
        let warmup = f64::from(t) / f64::from(self.warmup.max(1));
        let decay = f64::from(self.steps + 1 - t.min(self.steps)) / (f64::from(self.decay) + 1.0);
        (f64::from(self.learning_rate) * warmup.min(decay).min(1.0)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_rises_stays_and_falls() {
        let schedule = Schedule { learning_rate: 2.0, warmup: 4, decay: 3, steps: 12 };
        let rates: Vec<f32> = (1..=12).map(|t| schedule.learning_rate(t)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]);
        let constant = Schedule { warmup: 0, decay: 0, ..schedule };
        assert!((1..=12).all(|t| constant.learning_rate(t) == 2.0));
    }
}
