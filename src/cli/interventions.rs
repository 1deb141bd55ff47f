//! `--ablate`, `--ablate-with` and `--scale`: a model with some of its parts taken away or turned up.

use crate::lens::intervention::{
    Edit, Intervention, InterventionTarget, Interventions, Outcome, ProbabilityShift,
};
use crate::{Hornbook, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// How many of either prediction's most likely tokens are compared.
pub const COMPARED: usize = 5;

/// What is done to a model before it runs.
#[derive(Args, Clone, Debug)]
pub struct InterventionArgs {
    /// Ablate attention heads and MLPs, e.g. L5H1,mlp3
    #[arg(long, value_name = "PARTS", value_delimiter = ',', help_heading = "Interventions")]
    ablate: Vec<InterventionTarget>,

    /// Replacement for the output of ablated parts
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value_t = With::Zero,
        requires = "ablate",
        help_heading = "Interventions"
    )]
    ablate_with: With,

    /// Scale the outputs of heads and MLPs, e.g. L5H1=2,mlp3=0.5 (applied after --ablate)
    #[arg(
        long,
        value_name = "PART=S",
        value_delimiter = ',',
        value_parser = parse_scale,
        allow_hyphen_values = true,
        help_heading = "Interventions"
    )]
    scale: Vec<(InterventionTarget, f32)>,
}

/// What an ablated part brings.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum With {
    /// Zeros
    Zero,
    /// The mean output over the tokens of the prompt
    Mean,
}

impl InterventionArgs {
    /// The changes, in the order they are made.
    pub fn list(&self) -> Vec<Intervention> {
        let edit = match self.ablate_with {
            With::Zero => Edit::Zero,
            With::Mean => Edit::Mean,
        };
        let ablated = self.ablate.iter().map(|&part| Intervention { target: part, edit });
        let scaled =
            self.scale.iter().map(|&(part, by)| Intervention { target: part, edit: Edit::Scale(by) });
        ablated.chain(scaled).collect()
    }

    /// The changes ready to be made; none where nothing is to be changed.
    ///
    /// # Errors
    /// As [`Interventions::new`] and [`Hornbook::validate_prompt`].
    pub fn build(&self, hornbook: &Hornbook, prompt: &[u32]) -> Result<Option<Interventions>> {
        match &self.list()[..] {
            [] => Ok(None),
            list => Interventions::new(hornbook.model(), &hornbook.validate_prompt(prompt)?, list).map(Some),
        }
    }
}

/// What changes did, for a program.
pub fn json(outcome: &Outcome, hornbook: &Hornbook) -> Value {
    let shift = |&ProbabilityShift { id, before, after }: &ProbabilityShift| {
        let token = hornbook.try_tokenizer().map(|tokenizer| tokenizer.decode(&[id]));
        json!({"id": id, "token": token, "before": before, "after": after})
    };
    json!({
        "changes": outcome.changes.iter().map(Intervention::to_string).collect::<Vec<_>>(),
        "next": outcome.effect.next.iter().map(shift).collect::<Vec<_>>(),
        "kl_divergence": outcome.effect.kl_divergence,
    })
}

fn parse_scale(text: &str) -> std::result::Result<(InterventionTarget, f32), String> {
    let (part, by) = text.split_once('=').ok_or_else(|| format!("'{text}': expected PART=S, e.g. L5H1=2"))?;
    let number = by.trim().parse().ok().filter(|by: &f32| by.is_finite());
    Ok((part.parse()?, number.ok_or_else(|| format!("'{by}' is no finite number"))?))
}
