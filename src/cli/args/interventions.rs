//! `--ablate`, `--ablate-with` and `--scale`: interventions on heads and MLPs.

use crate::lens::intervention::{Edit, Intervention, InterventionTarget, Interventions};
use crate::{Hornbook, Result};
use clap::{Args, ValueEnum};

/// The options for interventions.
#[derive(Args, Clone, Debug)]
pub struct InterventionArgs {
    /// Ablate attention heads and MLPs, e.g. L5H1,mlp3
    #[arg(long, value_name = "COMPONENTS", value_delimiter = ',', help_heading = "Interventions")]
    ablate: Vec<InterventionTarget>,

    /// Replacement for the output of ablated components
    #[arg(
        long,
        value_name = "VALUE",
        value_enum,
        default_value_t = AblationValue::Zero,
        requires = "ablate",
        help_heading = "Interventions"
    )]
    ablate_with: AblationValue,

    /// Scale the outputs of heads and MLPs, e.g. L5H1=2,mlp3=0.5 (applied after --ablate)
    #[arg(
        long,
        value_name = "COMPONENT=FACTOR",
        value_delimiter = ',',
        value_parser = parse_scale,
        allow_hyphen_values = true,
        help_heading = "Interventions"
    )]
    scale: Vec<(InterventionTarget, f32)>,
}

/// The replacement for the output of an ablated component.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AblationValue {
    /// Zeros
    Zero,
    /// The mean output over the tokens of the prompt
    Mean,
}

impl InterventionArgs {
    /// The interventions, in the order they are applied.
    pub fn list(&self) -> Vec<Intervention> {
        let edit = match self.ablate_with {
            AblationValue::Zero => Edit::Zero,
            AblationValue::Mean => Edit::Mean,
        };
        let ablated = self.ablate.iter().map(|&target| Intervention { target, edit });
        let scaled = self.scale.iter();
        let scaled = scaled.map(|&(target, factor)| Intervention { target, edit: Edit::Scale(factor) });
        ablated.chain(scaled).collect()
    }

    /// The observer that applies the interventions; `None` without interventions.
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

fn parse_scale(text: &str) -> std::result::Result<(InterventionTarget, f32), String> {
    let (target, factor) =
        text.split_once('=').ok_or_else(|| format!("'{text}': expected COMPONENT=FACTOR, e.g. L5H1=2"))?;
    let number = factor.trim().parse().ok().filter(|factor: &f32| factor.is_finite());
    Ok((target.parse()?, number.ok_or_else(|| format!("'{factor}' is not a finite number"))?))
}
