//! What an operation says about itself: the head of its own source file, so that an explanation and the code it explains
//! cannot drift apart.

use serde::Serialize;

/// What a file says about its operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceDoc {
    /// The file.
    pub file: &'static str,
    /// What comes before the formula, its paragraphs on one line each; all of it where there is no formula.
    pub idea: Vec<String>,
    /// The first block that is no Rust, line by line.
    pub formula: Vec<String>,
}

/// A file that documents an operation.
macro_rules! source {
    ($path:literal) => {
        ($path, include_str!(concat!("../", $path)))
    };
}

/// A file and its text.
pub(super) type Source = (&'static str, &'static str);
pub(super) const TOKENS: Source = source!("tokenizer/mod.rs");
pub(super) const MERGES: Source = source!("tokenizer/merge_steps.rs");
pub(super) const EMBEDDING: Source = source!("kernels/embedding.rs");
pub(super) const POSITIONS: Source = source!("kernels/positions.rs");
pub(super) const LAYER_NORM: Source = source!("kernels/layer_norm.rs");
pub(super) const LINEAR: Source = source!("kernels/linear/mod.rs");
pub(super) const ATTENTION: Source = source!("kernels/attention/mod.rs");
pub(super) const MLP: Source = source!("kernels/mlp.rs");
pub(super) const ACTIVATION: Source = source!("kernels/activation.rs");
pub(super) const LOGITS: Source = source!("kernels/logits.rs");
pub(super) const SOFTMAX: Source = source!("kernels/softmax.rs");

impl SourceDoc {
    /// The head of a source file.
    pub(super) fn parse((file, source): Source) -> Self {
        let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.trim_end());
        let (mut idea, mut formula) = (vec![String::new()], vec![]);
        let mut in_block = false;
        for line in lines {
            let line = line.strip_prefix(' ').unwrap_or(line);
            match (in_block, line.strip_prefix("```")) {
                (false, Some("text")) => in_block = true,
                (_, Some(_)) => break,
                (true, None) => formula.push(line.to_string()),
                (false, None) if line.is_empty() => idea.push(String::new()),
                (false, None) => {
                    let paragraph = idea.last_mut().expect("there is one from the start");
                    *paragraph += if paragraph.is_empty() { "" } else { " " };
                    *paragraph += line;
                }
            }
        }
        idea.retain(|paragraph| !paragraph.is_empty());
        // Links are for a browser.
        let plain = |text: &mut String| *text = text.replace("[`", "`").replace("`]", "`").replace('`', "");
        idea.iter_mut().for_each(plain);
        Self { file, idea, formula }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_it_is() {
        let with_formula =
            [EMBEDDING, POSITIONS, LAYER_NORM, LINEAR, ATTENTION, MLP, ACTIVATION, LOGITS, SOFTMAX];
        for source in with_formula.into_iter().chain([MERGES]) {
            let doc = SourceDoc::parse(source);
            let idea = doc.idea.join(" ");
            assert!(idea.len() > 40 && idea.ends_with(['.', ':', '?']), "{}: {idea}", doc.file);
            assert!(doc.formula.iter().any(|line| line.contains('=')), "{}: {:?}", doc.file, doc.formula);
            assert!(!idea.contains('`'), "{}: {idea}", doc.file);
        }
        let tokens = SourceDoc::parse(TOKENS);
        assert!(tokens.idea.len() > 1 && tokens.formula.is_empty());
        // The words are the file's own.
        let norm = SourceDoc::parse(LAYER_NORM);
        assert!(
            norm.idea[0].starts_with("Layer normalization: give each token's vector mean 0 and variance 1")
        );
        assert!(norm.formula[0].starts_with("y = (x − mean(x)) / √(var(x) + ε)"));
    }
}
