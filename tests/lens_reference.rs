//! The lens against PyTorch: attention patterns, the residual stream, the logit lens, surprise and direct logit
//! attribution. References are made by scripts/make_lens_reference.py.

use crate::reference::{Reference, data};
use hornbook::Hornbook;
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::lens::inspection::InspectionOptions;
use hornbook::lens::{ActivationCache, Component, DirectLogitAttribution, Inspection};
use hornbook::model::{KvCache, LogitsWanted, Model, Precision, Segment, Site, Workspace};
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
    let settings = InspectionOptions { best: 5, ..InspectionOptions::default() };
    Inspection::run(hornbook, ids, settings, &mut (), |_| {}).unwrap()
}

#[test]
fn capture_surprise_and_attribution_are_pytorchs() {
    for folder in TINY.into_iter().chain(["fable"]) {
        let reference = Reference::of(folder, "lens.safetensors");
        let hornbook = open(folder);
        let seen = inspect(&hornbook, &reference.ids());
        let check = |name: &str, found: Vec<f32>| reference.assert_close(name, &found, TOLERANCE, folder);
        check("attention", seen.capture.patterns.iter().copied().collect());
        check("hidden", seen.capture.residuals.iter().copied().collect());
        check("norms", seen.norms.iter().copied().collect());
        check("entropy", seen.readings.iter().map(|reading| reading.entropy).collect());
        check("surprise", (1..seen.capture.len()).map(|t| seen.surprisal(t).unwrap()).collect());
        let targets: Vec<u32> = seen.contributions.iter().map(|c| c.target).collect();
        assert_eq!(targets, reference.whole("target"), "{folder}");
        check("logit", seen.contributions.iter().map(|c| c.logit).collect());
        check("mean_logit", seen.contributions.iter().map(|c| c.mean_logit).collect());
        check("direct", seen.contributions.iter().flat_map(|c| c.direct.clone()).collect());
        check("relative", seen.contributions.iter().flat_map(|c| c.relative.clone()).collect());
    }
}

#[test]
fn the_logit_lens_is_pytorchs_and_its_last_row_the_models_answer() {
    for folder in TINY {
        let reference = Reference::of(folder, "lens.safetensors");
        let hornbook = open(folder);
        let model = hornbook.model();
        let capture = ActivationCache::capture(model, &reference.ids(), KvPrecision::F32, &mut ()).unwrap();
        let rows = hornbook::kernels::rows::Rows::dense(
            capture.residuals.as_slice().unwrap(),
            model.config().n_embd,
        );
        let lens = model.unembed_residual(rows);
        reference.assert_close("lens", &lens, TOLERANCE, folder);
        let logits = capture.logits.as_slice().unwrap();
        assert_eq!(&lens[lens.len() - logits.len()..], logits, "{folder}: the same bits");
    }
    let reference = Reference::of("fable", "lens.safetensors");
    let seen = inspect(&open("fable"), &reference.ids());
    let best = || seen.lens.iter().flatten().flat_map(|reading| &reading.best);
    reference.assert_close(
        "lens_logprobs",
        &best().map(|best| best.1).collect::<Vec<_>>(),
        TOLERANCE,
        "fable",
    );
    assert_eq!(best().map(|best| best.0).collect::<Vec<_>>(), reference.whole("lens_ids"));
    assert_eq!(seen.lens[6], seen.readings, "the last row is the answer");
}

/// A pass that nobody watches.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut cache = KvCache::new(model.config(), ids.len(), KvPrecision::F32);
    let mut workspace = Workspace::new();
    let segment = Segment { tokens: ids, cache: &mut cache, logits: LogitsWanted::All };
    model.forward(&mut [segment], &mut workspace, &mut ()).unwrap();
    (0..ids.len()).flat_map(|t| workspace.logits().row(t).to_vec()).collect()
}

#[test]
fn looking_changes_no_bit() {
    for folder in TINY.into_iter().chain(["fable"]) {
        let ids = Reference::of(folder, "lens.safetensors").ids();
        let hornbook = open(folder);
        let seen = inspect(&hornbook, &ids);
        assert_eq!(seen.capture.logits.as_slice().unwrap(), logits(hornbook.model(), &ids), "{folder}");
    }
}

#[test]
fn the_parts_add_up_to_the_logit() {
    // In every precision: exactly but for f32's rounding where weights are plain numbers, and but for the rounding of
    // inputs where they are not.
    let ids = Reference::of("fable", "lens.safetensors").ids();
    let precisions =
        [("f32", 2e-5), ("f16", 2e-5), ("bf16", 2e-5), ("int8", 0.05), ("int4", 0.05), ("bf16-dot", 0.02)];
    for (precision, tolerance) in precisions {
        let precision: Precision = precision.parse().unwrap();
        let pool = ThreadPool::new(1, Isa::available()[0]);
        let checkpoint = Checkpoint::open("fable").unwrap();
        let hornbook = Hornbook::with_precision(checkpoint, pool, Some(precision)).unwrap();
        let model = hornbook.model();
        let capture = ActivationCache::capture(model, &ids, KvPrecision::F32, &mut ()).unwrap();
        let attribution = DirectLogitAttribution::new(model);
        let parts = attribution.parts();
        assert_eq!(parts.len(), 2 + 6 * (4 + 2) + 1);
        assert_eq!((parts[2], parts[2 + 4]), (Component::Head { layer: 0, head: 0 }, Component::AttnBias(0)));
        for (token, target) in [(0, 17), (4, 300), (ids.len() - 1, 4095)] {
            let found = attribution.attribute(&capture, token, target);
            let sum = |parts: &[f32]| parts.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
            let size = found.direct.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (sum, whole) in
                [(sum(&found.direct), found.logit), (sum(&found.relative), found.logit - found.mean_logit)]
            {
                let off = (sum - whole).abs() / size;
                assert!(
                    off <= tolerance,
                    "{precision}: token {token}: {sum}, expected {whole}, off by {off}"
                );
            }
        }
    }
}

#[test]
fn what_is_captured_is_what_an_observer_made_of_it() {
    let ids = Reference::of("fable", "lens.safetensors").ids();
    let hornbook = open("fable");
    let plain = ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut ()).unwrap();
    let mut silence = |site: Site, mut values: ArrayViewMutD<'_, f32>| {
        if site == Site::MlpOut(2) {
            values.fill(0.0);
        }
    };
    let changed = ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut silence).unwrap();
    assert!(changed.mlp_out.outer_iter().nth(2).unwrap().iter().all(|&x| x == 0.0));
    assert_ne!(plain.logits, changed.logits);
    let first = |capture: &ActivationCache| capture.residuals.outer_iter().nth(2).unwrap().to_owned();
    assert_eq!(first(&plain), first(&changed), "what came before is the same");
}

#[test]
fn a_rest_on_the_first_token_is_not_telling_and_a_find_is() {
    let ids = Reference::of("fable", "lens.safetensors").ids();
    let hornbook = open("fable");
    let mut capture = ActivationCache::capture(hornbook.model(), &ids, KvPrecision::F32, &mut ()).unwrap();
    capture.patterns.fill(0.0);
    for i in 0..ids.len() {
        capture.patterns[[0, 0, i, 0]] = 1.0; // the first
        capture.patterns[[0, 1, i, i.saturating_sub(1)]] = 1.0; // the one before
        capture.patterns[[3, 2, i, i.min(2)]] = 0.4; // one other
        capture.patterns[[4, 2, i, i.min(2)]] = 0.3;
    }
    let found = hornbook::lens::saliency::most_salient_head(&capture, None);
    assert_eq!((found.layer, found.head), (3, 2));
    let n = ids.len() as f32;
    assert!((found.score - 0.4 * (n - 4.0) / (n - 3.0)).abs() < 1e-6, "token 3 looks at the one before");
    let of_layer = hornbook::lens::saliency::most_salient_head(&capture, Some(4));
    assert_eq!((of_layer.layer, of_layer.head), (4, 2));
    assert_eq!(hornbook::lens::saliency::most_salient_head(&capture, Some(0)).score, 0.0);
}

#[test]
fn what_is_not_there_is_refused() {
    let hornbook = open("fable");
    let refuse = |tokens: &[u32], settings: InspectionOptions| {
        Inspection::run(&hornbook, tokens, settings, &mut (), |_| {}).unwrap_err().to_string()
    };
    let plain = InspectionOptions::default();
    assert_eq!(refuse(&[], plain), "there is no token to look at");
    assert_eq!(
        refuse(&[1; 513], plain),
        "the prompt is 513 tokens long, but the model's context is 512 tokens"
    );
    assert_eq!(
        refuse(&[1], InspectionOptions { layer: Some(6), ..plain }),
        "--layer: found 6, expected a number from 0 to 5"
    );
    assert_eq!(
        refuse(&[1], InspectionOptions { target: Some(4096), ..plain }),
        "token id 4096 is outside the vocabulary (0 to 4095)"
    );
}
