//! The lens against PyTorch: attention patterns, residual stream, logit lens, surprisal and direct logit
//! attribution. The references are written by scripts/make_lens_reference.py.

use crate::reference::{Reference, data};
use hornbook::Hornbook;
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::lens::inspection::InspectionOptions;
use hornbook::lens::{ActivationCache, Component, DirectLogitAttribution, Inspection};
use hornbook::model::{LogitsWanted, Model, Precision, Segment, Site, Workspace};
use ndarray::ArrayViewMutD;

const TOLERANCE: f32 = 1e-5;
const TINY: [&str; 2] = ["tiny-gelu-inverse-layer", "tiny-relu-untied"];

fn open(folder: &str) -> Hornbook {
    let checkpoint = match folder {
        "fable" => Checkpoint::open(folder).unwrap(),
        folder => Checkpoint::from_folder(&data(folder)).unwrap(),
    };
    Hornbook::new(checkpoint, ThreadPool::new(2, Isa::available()[0])).unwrap()
}

fn inspect(hornbook: &Hornbook, ids: &[u32]) -> Inspection {
    let options = InspectionOptions { top: 5, ..InspectionOptions::default() };
    Inspection::run(hornbook, ids, options, &mut (), |_| {}).unwrap()
}

#[test]
fn activations_surprisal_and_attribution_match_pytorch() {
    for folder in TINY.into_iter().chain(["fable"]) {
        let reference = Reference::from_file(folder, "lens.safetensors");
        let hornbook = open(folder);
        let inspection = inspect(&hornbook, &reference.ids());
        let check = |name: &str, found: Vec<f32>| reference.assert_close(name, &found, TOLERANCE, folder);
        check("attention", inspection.activations.patterns.iter().copied().collect());
        check("hidden", inspection.activations.residuals.iter().copied().collect());
        check("norms", inspection.residual_norms.iter().copied().collect());
        check("entropy", inspection.predictions.iter().map(|prediction| prediction.entropy).collect());
        check(
            "surprise",
            (1..inspection.activations.len()).map(|t| inspection.surprisal(t).unwrap()).collect(),
        );
        let targets: Vec<u32> = inspection.logit_attributions.iter().map(|c| c.target).collect();
        assert_eq!(targets, reference.integers("target"), "{folder}");
        check("logit", inspection.logit_attributions.iter().map(|c| c.logit).collect());
        check("mean_logit", inspection.logit_attributions.iter().map(|c| c.mean_logit).collect());
        check("direct", inspection.logit_attributions.iter().flat_map(|c| c.contributions.clone()).collect());
        check("relative", inspection.logit_attributions.iter().flat_map(|c| c.centered.clone()).collect());
    }
}

#[test]
fn logit_lens_matches_pytorch_and_last_row_is_prediction() {
    for folder in TINY {
        let reference = Reference::from_file(folder, "lens.safetensors");
        let hornbook = open(folder);
        let model = hornbook.model();
        let activations =
            ActivationCache::capture(model, &reference.ids(), KvPrecision::F32, &mut ()).unwrap();
        let rows = hornbook::kernels::rows::Rows::dense(
            activations.residuals.as_slice().unwrap(),
            model.config().n_embd,
        );
        let lens = model.unembed_residual(rows);
        reference.assert_close("lens", &lens, TOLERANCE, folder);
        let logits = activations.logits.as_slice().unwrap();
        assert_eq!(&lens[lens.len() - logits.len()..], logits, "{folder}: the same bits");
    }
    let reference = Reference::from_file("fable", "lens.safetensors");
    let inspection = inspect(&open("fable"), &reference.ids());
    let top = || inspection.logit_lens.iter().flatten().flat_map(|prediction| &prediction.top);
    reference.assert_close("lens_logprobs", &top().map(|top| top.1).collect::<Vec<_>>(), TOLERANCE, "fable");
    assert_eq!(top().map(|top| top.0).collect::<Vec<_>>(), reference.integers("lens_ids"));
    assert_eq!(inspection.logit_lens[6], inspection.predictions, "the last row is the prediction");
}

/// The logits of a pass without an observer.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut cache = model.kv_cache(ids.len(), KvPrecision::F32);
    let mut workspace = Workspace::new();
    let segment = Segment { tokens: ids, cache: &mut cache, logits: LogitsWanted::All };
    model.forward(&mut [segment], &mut workspace, &mut ()).unwrap();
    (0..ids.len()).flat_map(|t| workspace.logits().row(t).to_vec()).collect()
}

#[test]
fn inspection_changes_no_bit() {
    for folder in TINY.into_iter().chain(["fable"]) {
        let ids = Reference::from_file(folder, "lens.safetensors").ids();
        let hornbook = open(folder);
        let inspection = inspect(&hornbook, &ids);
        assert_eq!(
            inspection.activations.logits.as_slice().unwrap(),
            logits(hornbook.model(), &ids),
            "{folder}"
        );
    }
}

#[test]
fn contributions_sum_to_logit() {
    // Up to f32 rounding for unquantized activations, and up to the quantization error otherwise.
    let ids = Reference::from_file("fable", "lens.safetensors").ids();
    let precisions =
        [("f32", 2e-5), ("f16", 2e-5), ("bf16", 2e-5), ("int8", 0.05), ("int4", 0.05), ("bf16-dot", 0.02)];
    for (precision, tolerance) in precisions {
        let precision: Precision = precision.parse().unwrap();
        let pool = ThreadPool::new(1, Isa::available()[0]);
        let checkpoint = Checkpoint::open("fable").unwrap();
        let hornbook = Hornbook::with_precision(checkpoint, pool, Some(precision)).unwrap();
        let model = hornbook.model();
        let activations = ActivationCache::capture(model, &ids, KvPrecision::F32, &mut ()).unwrap();
        let attribution = DirectLogitAttribution::new(model);
        let components = attribution.components();
        assert_eq!(components.len(), 2 + 6 * (4 + 2) + 1);
        assert_eq!(
            (components[2], components[2 + 4]),
            (Component::Head { layer: 0, head: 0 }, Component::AttnBias(0))
        );
        for (token, target) in [(0, 17), (4, 300), (ids.len() - 1, 4095)] {
            let found = attribution.attribute(&activations, token, target);
            let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
            let size = found.contributions.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (sum, expected) in [
                (sum(&found.contributions), found.logit),
                (sum(&found.centered), found.logit - found.mean_logit),
            ] {
                let off = (sum - expected).abs() / size;
                assert!(
                    off <= tolerance,
                    "{precision}: token {token}: {sum}, expected {expected}, off by {off}"
                );
            }
        }
    }
}

#[test]
fn changes_of_observer_are_captured() {
    let ids = Reference::from_file("fable", "lens.safetensors").ids();
    let hornbook = open("fable");
    let unchanged = ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut ()).unwrap();
    let mut ablate = |site: Site, mut values: ArrayViewMutD<'_, f32>| {
        if site == Site::MlpOut(2) {
            values.fill(0.0);
        }
    };
    let changed = ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut ablate).unwrap();
    assert!(changed.mlp_out.outer_iter().nth(2).unwrap().iter().all(|&x| x == 0.0));
    assert_ne!(unchanged.logits, changed.logits);
    let first = |activations: &ActivationCache| activations.residuals.outer_iter().nth(2).unwrap().to_owned();
    assert_eq!(first(&unchanged), first(&changed), "earlier activations are the same");
}

#[test]
fn saliency_ignores_first_and_previous_token() {
    let ids = Reference::from_file("fable", "lens.safetensors").ids();
    let hornbook = open("fable");
    let mut activations =
        ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut ()).unwrap();
    activations.patterns.fill(0.0);
    for i in 0..ids.len() {
        activations.patterns[[0, 0, i, 0]] = 1.0; // the first
        activations.patterns[[0, 1, i, i.saturating_sub(1)]] = 1.0; // the one before
        activations.patterns[[3, 2, i, i.min(2)]] = 0.4; // one other
        activations.patterns[[4, 2, i, i.min(2)]] = 0.3;
    }
    let found = hornbook::lens::saliency::most_salient_head(&activations, None);
    assert_eq!((found.layer, found.head), (3, 2));
    let n = ids.len() as f32;
    assert!(
        (found.saliency - 0.4 * (n - 4.0) / (n - 3.0)).abs() < 1e-6,
        "token 3 attends to the previous token"
    );
    let in_layer = hornbook::lens::saliency::most_salient_head(&activations, Some(4));
    assert_eq!((in_layer.layer, in_layer.head), (4, 2));
    assert_eq!(hornbook::lens::saliency::most_salient_head(&activations, Some(0)).saliency, 0.0);
}

#[test]
fn invalid_options_are_rejected() {
    let hornbook = open("fable");
    let error_of = |tokens: &[u32], options: InspectionOptions| {
        Inspection::run(&hornbook, tokens, options, &mut (), |_| {}).unwrap_err().to_string()
    };
    let defaults = InspectionOptions::default();
    assert_eq!(error_of(&[], defaults), "the text has no tokens, expected at least one");
    assert_eq!(
        error_of(&[1; 513], defaults),
        "the prompt is 513 tokens long, but the model's context is 512 tokens"
    );
    assert_eq!(
        error_of(&[1], InspectionOptions { layer: Some(6), ..defaults }),
        "--layer: found 6, expected 0 to 5"
    );
    assert_eq!(
        error_of(&[1], InspectionOptions { target: Some(4096), ..defaults }),
        "token id 4096 is outside the vocabulary (0 to 4095)"
    );
}
