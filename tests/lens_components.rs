//! Interventions, head detection and the remaining sites against PyTorch. The references are written by
//! scripts/make_parts_reference.py.

use crate::reference::{Reference, data};
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::lens::heads::{HeadKind, HeadScores, score};
use hornbook::lens::intervention::{Edit, Effect, Intervention, InterventionTarget, Interventions};
use hornbook::lens::positions::PositionSimilarity;
use hornbook::model::{LogitsWanted, Model, Observer, Segment, Session, Site, Workspace};
use hornbook::sampling::SamplingParams;
use hornbook::{Hornbook, Options};
use ndarray::{ArrayViewMutD, Axis};
use serde_json::Value;
use std::collections::HashMap;

const TINY: [&str; 2] = ["tiny-gelu-new", "tiny-gelu-inverse-layer"];
const TOLERANCE: f32 = 1e-5;

fn checkpoint(folder: &str) -> Checkpoint {
    Checkpoint::from_folder(&data(folder)).unwrap()
}

fn model(folder: &str) -> Model {
    Model::new(checkpoint(folder), ThreadPool::new(2, Isa::available()[0]))
}

/// `L1H0 zero,mlp0 x2`, as the script writes it.
fn interventions(text: &str) -> Vec<Intervention> {
    let intervention = |text: &str| {
        let (target, edit) = text.split_once(' ').unwrap();
        let edit = match edit {
            "zero" => Edit::Zero,
            "mean" => Edit::Mean,
            scale => Edit::Scale(scale.strip_prefix('x').unwrap().parse().unwrap()),
        };
        Intervention { target: target.parse().unwrap(), edit }
    };
    text.split(',').map(intervention).collect()
}

/// The logits of all tokens, with the prompt in chunks.
fn logits(model: &Model, ids: &[u32], chunk: usize, mut observer: impl Observer) -> Vec<f32> {
    let mut cache = model.kv_cache(ids.len(), KvPrecision::F32);
    let (mut workspace, mut all) = (Workspace::new(), vec![]);
    for tokens in ids.chunks(chunk) {
        let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::All };
        model.forward(&mut [segment], &mut workspace, &mut observer).unwrap();
        (0..workspace.logits().len()).for_each(|t| all.extend(workspace.logits().row(t)));
    }
    all
}

#[test]
fn logits_with_interventions_match_pytorch() {
    let mut checked = 0;
    for folder in TINY {
        let reference = Reference::parts(folder);
        let model = model(folder);
        let ids = reference.ids();
        for name in reference.names("logits.") {
            let edits = interventions(name.strip_prefix("logits.").unwrap());
            let observer = Interventions::new(&model, &ids, &edits).unwrap();
            let single_pass = logits(&model, &ids, usize::MAX, observer.clone());
            reference.assert_close(&name, &single_pass, TOLERANCE, folder);
            assert_eq!(logits(&model, &ids, 3, observer), single_pass, "{folder}: {name} in chunks");
            checked += 1;
        }
    }
    assert_eq!(checked, 10);
}

#[test]
fn interventions_apply_to_generated_tokens() {
    for folder in TINY {
        let reference = Reference::parts(folder);
        let hornbook = Hornbook::new(checkpoint(folder), ThreadPool::new(1, Isa::available()[0])).unwrap();
        let ids = reference.ids();
        // EOS is disabled, as in the greedy decoding of the script.
        let sampling = SamplingParams { temperature: 0.0, min_tokens: 24, ..SamplingParams::default() };
        let options = Options { sampling, max_tokens: Some(24), ..Options::default() };
        for name in reference.names("greedy.") {
            let edits = interventions(name.strip_prefix("greedy.").unwrap());
            let observer = Interventions::new(hornbook.model(), &ids, &edits).unwrap();
            let generated: Vec<u32> = hornbook
                .generate_observed(&ids, &options, observer)
                .unwrap()
                .map(|token| token.unwrap().id)
                .collect();
            let expected = reference.integers(&name);
            if !hornbook.config().eos_token_ids.iter().any(|eos| expected.contains(eos)) {
                assert_eq!(generated, expected, "{folder}: {name}");
            }
        }
    }
}

#[test]
fn effect_of_interventions_on_fable_matches_pytorch() {
    let expected: Value = serde_json::from_slice(&std::fs::read(data("fable/parts.json")).unwrap()).unwrap();
    let fable = Model::new(Checkpoint::open("fable").unwrap(), ThreadPool::new(2, Isa::available()[0]));
    let ids: Vec<u32> = serde_json::from_value(expected["input_ids"].clone()).unwrap();
    let next_logits = |observer: Interventions| {
        let mut session = Session::observed(&fable, ids.len(), KvPrecision::F32, observer);
        session.feed(&ids).unwrap().to_vec()
    };
    let before = next_logits(Interventions::new(&fable, &ids, &[]).unwrap());
    for change in expected["changes"].as_array().unwrap() {
        let name = change["change"].as_str().unwrap();
        let after = next_logits(Interventions::new(&fable, &ids, &interventions(name)).unwrap());
        let effect = Effect::measure(&before, &after, 5);
        let kl = change["kl_divergence"].as_f64().unwrap();
        assert!(
            (effect.kl_divergence - kl).abs() < 1e-4 * kl.max(0.01),
            "{name}: {} and {kl}",
            effect.kl_divergence
        );
        let best: Vec<(u32, f32, f32)> = serde_json::from_value(change["next"].clone()).unwrap();
        for (id, before, after) in best {
            let shift = effect.next.iter().find(|shift| shift.id == id).unwrap();
            assert!(
                (shift.before - before).abs() < 1e-5 && (shift.after - after).abs() < 1e-5,
                "{name}: {shift:?}"
            );
        }
    }

    let positions = PositionSimilarity::from_model(&fable);
    let by_distance: Vec<(usize, f64)> = serde_json::from_value(expected["positions"].clone()).unwrap();
    for (distance, mean) in by_distance {
        assert!((positions.mean_at_distance(512, distance) - mean).abs() < 1e-6, "{distance}");
    }

    let sequences: Vec<Vec<u32>> = serde_json::from_value(expected["heads_tokens"].clone()).unwrap();
    let scores = score(&fable, &sequences, || {}).unwrap();
    for kind in HeadKind::ALL {
        let expected: Vec<f64> =
            serde_json::from_value(expected["heads"][kind.short_name()].clone()).unwrap();
        assert_scores(&scores, kind, &expected, "fable");
    }
}

fn assert_scores(scores: &[HeadScores], kind: HeadKind, expected: &[f64], context: &str) {
    assert_eq!(scores.len(), expected.len());
    for (head, expected) in scores.iter().zip(expected) {
        let found = head.score(kind);
        assert!((found - expected).abs() < 1e-5, "{context}: {head:?}: {} is {expected}", kind.name());
    }
}

#[test]
fn head_scores_match_pytorch() {
    for folder in TINY {
        let reference = Reference::parts(folder);
        let tokens = reference.integers("heads.tokens");
        let sequences: Vec<Vec<u32>> = tokens.chunks(41).map(<[u32]>::to_vec).collect();
        let mut calls = 0;
        let scores = score(&model(folder), &sequences, || calls += 1).unwrap();
        assert_eq!((sequences.len(), calls), (2, 2));
        for kind in HeadKind::ALL {
            let expected = reference.values(&format!("heads.{}", kind.short_name()));
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            assert_scores(&scores, kind, &expected, folder);
        }
    }
}

#[test]
fn remaining_sites_match_pytorch() {
    for folder in TINY {
        let reference = Reference::parts(folder);
        let model = model(folder);
        let mut activations: HashMap<Site, Vec<f32>> = HashMap::new();
        logits(&model, &reference.ids(), usize::MAX, |site: Site, values: ArrayViewMutD<'_, f32>| {
            activations.insert(site, values.iter().copied().collect());
        });
        let check =
            |site: Site, name: &str| reference.assert_close(name, &activations[&site], TOLERANCE, folder);
        check(Site::PosEmbed, "position");
        for layer in 0..model.config().n_layer {
            check(Site::Ln1(layer), &format!("ln_1.{layer}"));
            check(Site::Ln2(layer), &format!("ln_2.{layer}"));
            check(Site::Pre(layer), &format!("pre.{layer}"));
        }
        let all: Vec<Site> = Site::all(model.config().n_layer).collect();
        assert!(all.iter().all(|site| activations.contains_key(site)) && all.len() == activations.len());
    }
}

/// Observes one site, and changes the first value of each row if the flag is set.
struct SiteProbe(Site, bool);

impl Observer for SiteProbe {
    fn is_interested(&self, site: Site) -> bool {
        site == self.0
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        assert_eq!(site, self.0);
        if self.1 {
            let last = Axis(values.ndim() - 1);
            values.index_axis_mut(last, 0).mapv_inplace(|x| 2.0 * x + 1.0);
        }
    }
}

#[test]
fn observing_changes_no_bit_and_writing_changes_all_but_patterns() {
    let model = model("tiny-gelu-new");
    let ids = Reference::parts("tiny-gelu-new").ids();
    let baseline = logits(&model, &ids, usize::MAX, ());
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for site in Site::all(model.config().n_layer) {
        let observed = logits(&model, &ids, usize::MAX, SiteProbe(site, false));
        assert_eq!(bits(observed), bits(baseline.clone()), "{site} was observed");
        let changed = logits(&model, &ids, usize::MAX, SiteProbe(site, true));
        let read_only = matches!(site, Site::Pattern(_));
        assert_eq!(bits(changed) == bits(baseline.clone()), read_only, "{site} was changed");
    }
    // Two observers: the second observes the changes of the first.
    let first = SiteProbe(Site::FinalNorm, true);
    let mut after = vec![];
    let second = |site: Site, values: ArrayViewMutD<'_, f32>| {
        if site == Site::FinalNorm {
            after = values.iter().copied().collect();
        }
    };
    let both = logits(&model, &ids, usize::MAX, (first, second));
    assert_eq!(both, logits(&model, &ids, usize::MAX, SiteProbe(Site::FinalNorm, true)));
    let mut before = vec![];
    logits(&model, &ids, usize::MAX, |site: Site, values: ArrayViewMutD<'_, f32>| {
        if site == Site::FinalNorm {
            before = values.iter().copied().collect();
        }
    });
    assert_eq!(after[0], 2.0 * before[0] + 1.0);
    assert_eq!(after[1], before[1]);
}

#[test]
fn unknown_component_is_named() {
    let model = model("tiny-gelu-new");
    let error_of = |target: InterventionTarget, edit: Edit| {
        Interventions::new(&model, &[1, 2], &[Intervention { target, edit }]).unwrap_err().to_string()
    };
    let head = InterventionTarget::Head { layer: 1, head: 4 };
    assert_eq!(error_of(head, Edit::Zero), "component: found L1H4, expected a head from 0 to 3");
    let mlp = InterventionTarget::Mlp { layer: 2 };
    assert_eq!(error_of(mlp, Edit::Mean), "component: found mlp2, expected a layer from 0 to 1");
    let valid = InterventionTarget::Mlp { layer: 1 };
    assert_eq!(error_of(valid, Edit::Scale(f32::NAN)), "scale of mlp1: found NaN, expected a finite number");
}
