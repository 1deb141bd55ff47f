//! The documentation of an operation, parsed from the module comment of its source file, so that explanations
//! and code cannot diverge.

use serde::Serialize;

/// The documentation in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceDoc {
    /// The path of the file below `src`.
    pub file: &'static str,
    /// The paragraphs before the formula, one line each; all paragraphs if there is no formula.
    pub description: Vec<String>,
    /// The lines of the first `text` block.
    pub formula: Vec<String>,
}

/// The path and the text of a source file.
macro_rules! source {
    ($path:literal) => {
        ($path, include_str!(concat!("../", $path)))
    };
}

/// The path and the text of a source file.
pub type Source = (&'static str, &'static str);
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
/// The whole model as plain formulas.
pub const WHOLE_MODEL: Source = source!("model/reference.rs");

/// The files that explanations quote.
pub const SOURCES: [Source; 12] = [
    TOKENS,
    MERGES,
    EMBEDDING,
    POSITIONS,
    LAYER_NORM,
    LINEAR,
    ATTENTION,
    MLP,
    ACTIVATION,
    LOGITS,
    SOFTMAX,
    WHOLE_MODEL,
];

impl SourceDoc {
    /// Parses the module comment of a source file.
    pub(super) fn parse((file, source): Source) -> Self {
        let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.trim_end());
        let (mut description, mut formula) = (vec![String::new()], vec![]);
        let mut in_block = false;
        for line in lines {
            let line = line.strip_prefix(' ').unwrap_or(line);
            match (in_block, line.strip_prefix("```")) {
                (false, Some("text")) => in_block = true,
                (_, Some(_)) => break,
                (true, None) => formula.push(line.to_string()),
                (false, None) if line.is_empty() => description.push(String::new()),
                (false, None) => {
                    let paragraph = description.last_mut().expect("description starts with one paragraph");
                    *paragraph += if paragraph.is_empty() { "" } else { " " };
                    *paragraph += line;
                }
            }
        }
        description.retain(|paragraph| !paragraph.is_empty());
        // Removes the markup of links and code.
        let strip_markup =
            |text: &mut String| *text = text.replace("[`", "`").replace("`]", "`").replace('`', "");
        description.iter_mut().for_each(strip_markup);
        Self { file, description, formula }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_description_and_formula() {
        let with_formula =
            [EMBEDDING, POSITIONS, LAYER_NORM, LINEAR, ATTENTION, MLP, ACTIVATION, LOGITS, SOFTMAX];
        for source in with_formula.into_iter().chain([MERGES]) {
            let doc = SourceDoc::parse(source);
            let description = doc.description.join(" ");
            assert!(
                description.len() > 40 && description.ends_with(['.', ':', '?']),
                "{}: {description}",
                doc.file
            );
            assert!(doc.formula.iter().any(|line| line.contains('=')), "{}: {:?}", doc.file, doc.formula);
            assert!(!description.contains('`'), "{}: {description}", doc.file);
        }
        let whole = SourceDoc::parse(WHOLE_MODEL);
        assert!(whole.description.join(" ").contains("Read this file first"));
        let tokens = SourceDoc::parse(TOKENS);
        assert!(tokens.description.len() > 1 && tokens.formula.is_empty());
        // The text is that of the source file.
        let norm = SourceDoc::parse(LAYER_NORM);
        assert!(
            norm.description[0]
                .starts_with("Layer normalization: gives each token's vector mean 0 and variance 1")
        );
        assert!(norm.formula[0].starts_with("y = (x − mean(x)) / √(var(x) + ε)"));
    }
}
