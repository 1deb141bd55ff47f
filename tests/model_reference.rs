//! The forward pass against PyTorch: every named site, every variant of the architecture, every precision of
//! the weights. References are made by scripts/make_reference.py.

use crate::reference::{Reference, data, folders};
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{LogitsWanted, Model, Observer, Segment, Site, Workspace};
use ndarray::{ArrayD, ArrayViewMutD};
use std::collections::BTreeMap;

/// The maximum difference, relative to the largest absolute value of a tensor.
const TOLERANCE: f32 = 1e-5;

fn model(folder: &str, threads: usize, isa: Isa) -> Model {
    Model::new(Checkpoint::from_folder(&data(folder)).unwrap(), ThreadPool::new(threads, isa))
}

/// All logits of a sequence, prefilled in chunks of at most `chunk` tokens.
fn logits(model: &Model, ids: &[u32], chunk: usize, observer: &mut impl Observer) -> Vec<f32> {
    let mut cache = model.kv_cache(ids.len(), KvPrecision::F32);
    let mut workspace = Workspace::new();
    let mut all = vec![];
    for tokens in ids.chunks(chunk) {
        let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::All };
        model.forward(&mut [segment], &mut workspace, observer).unwrap();
        let logits = workspace.logits();
        (0..logits.len()).for_each(|t| all.extend(logits.row(t)));
    }
    all
}

#[derive(Default)]
struct Recorder(BTreeMap<Site, ArrayD<f32>>);

impl Observer for Recorder {
    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        assert!(self.0.insert(site, values.to_owned()).is_none(), "{site} observed twice");
    }
}

#[test]
fn logits_match_pytorch() {
    for folder in folders() {
        let reference = Reference::read(&folder);
        for isa in Isa::available() {
            let found = logits(&model(&folder, 2, isa), &reference.ids(), usize::MAX, &mut ());
            reference.assert_close("logits", &found, TOLERANCE, &format!("{folder} on {isa}"));
        }
    }
}

#[test]
fn activations_at_every_site_match_pytorch() {
    let mut full_references = 0;
    for folder in folders() {
        let reference = Reference::read(&folder);
        if !reference.has("hidden.0") {
            continue; // another format of the same model: logits only
        }
        full_references += 1;
        let model = model(&folder, 2, Isa::available()[0]);
        let mut recorder = Recorder::default();
        logits(&model, &reference.ids(), usize::MAX, &mut recorder);
        let check = |site: Site, name: String| {
            let found = recorder.0.get(&site).unwrap_or_else(|| panic!("{site} was not observed"));
            let found: Vec<f32> = found.iter().copied().collect();
            reference.assert_close(&name, &found, TOLERANCE, &format!("{folder} at {site}"));
        };
        let by_head = |site: Site, name: String| {
            // [n, n_head * head_dim] here, [n_head, n, head_dim] there
            let found = &recorder.0[&site];
            let (n, heads) = (found.shape()[0], model.config().n_head);
            let found = found.to_shape((n, heads, found.shape()[1] / heads)).unwrap();
            let found: Vec<f32> = found.permuted_axes([1, 0, 2]).iter().copied().collect();
            reference.assert_close(&name, &found, TOLERANCE, &format!("{folder} at {site}"));
        };
        for layer in 0..model.config().n_layer {
            check(Site::ResidPre(layer), format!("hidden.{layer}"));
            by_head(Site::Q(layer), format!("q.{layer}"));
            by_head(Site::K(layer), format!("k.{layer}"));
            by_head(Site::V(layer), format!("v.{layer}"));
            check(Site::Pattern(layer), format!("attention.{layer}"));
            check(Site::Z(layer), format!("z.{layer}"));
            check(Site::MlpOut(layer), format!("mlp.{layer}"));
            check(Site::ResidPost(layer), format!("hidden.{}", layer + 1));
        }
        check(Site::FinalNorm, "final_norm".into());
        check(Site::Logits, "logits".into());
    }
    assert!(full_references >= 4, "only {full_references} full references");
}

#[test]
fn same_bits_for_any_threads_chunk_and_isa() {
    for folder in folders() {
        let ids = Reference::read(&folder).ids();
        let expected = logits(&model(&folder, 1, Isa::Portable), &ids, usize::MAX, &mut ());
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let model = model(&folder, threads, isa);
                for chunk in [1, 7, 64] {
                    let found = logits(&model, &ids, chunk, &mut ());
                    assert!(
                        bits(&found) == bits(&expected),
                        "{folder}: {isa}, {threads} threads, chunk {chunk}"
                    );
                }
                let observed = logits(&model, &ids, usize::MAX, &mut Recorder::default());
                assert!(bits(&observed) == bits(&expected), "{folder}: observed on {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn same_bits_in_any_batch() {
    // Three sequences at different depths in one pass, one prefilling and two decoding, against each alone.
    let folder = "tiny-gelu-inverse-layer";
    let model = model(folder, 2, Isa::available()[0]);
    let ids = Reference::read(folder).ids();
    let sequences = [&ids[..20], &ids[3..11], &ids[7..8]];
    let alone: Vec<Vec<f32>> = sequences
        .iter()
        .map(|ids| {
            let all = logits(&model, ids, usize::MAX, &mut ());
            all[(ids.len() - 1) * model.config().vocab_size..].to_vec()
        })
        .collect();
    let mut workspace = Workspace::new();
    let mut caches = [(); 3].map(|()| model.kv_cache(32, KvPrecision::F32));
    let prefilled = [5, 7, 0]; // tokens in each cache before the common pass
    for ((cache, ids), n) in caches.iter_mut().zip(sequences).zip(prefilled) {
        let segment = Segment { tokens: &ids[..n], cache, logits: LogitsWanted::None };
        model.forward(&mut [segment], &mut workspace, &mut ()).unwrap();
        assert!(workspace.logits().is_empty());
    }
    let mut batch: Vec<Segment> = caches
        .iter_mut()
        .zip(sequences)
        .zip(prefilled)
        .map(|((cache, ids), n)| Segment { tokens: &ids[n..], cache, logits: LogitsWanted::Last })
        .collect();
    model.forward(&mut batch, &mut workspace, &mut ()).unwrap();
    for (i, alone) in alone.iter().enumerate() {
        assert!(bits(workspace.logits().row(i)) == bits(alone), "sequence {i}");
    }
}

#[test]
fn observer_changes_affect_logits() {
    let folder = "tiny-gelu-new";
    let model = model(folder, 1, Isa::available()[0]);
    let ids = Reference::read(folder).ids();
    let baseline = logits(&model, &ids, usize::MAX, &mut ());
    let mut zero_one_head = |site: Site, mut values: ArrayViewMutD<'_, f32>| {
        if site == Site::Z(1) {
            values.slice_each_axis_inplace(|axis| match axis.axis.index() {
                1 => (0..8).into(),
                _ => (..).into(),
            });
            values.fill(0.0);
        }
    };
    let ablated = logits(&model, &ids, usize::MAX, &mut zero_one_head);
    assert_ne!(baseline, ablated);
    let mut nothing = |_: Site, _: ArrayViewMutD<'_, f32>| {};
    assert_eq!(baseline, logits(&model, &ids, usize::MAX, &mut nothing));
}

#[test]
fn invalid_tokens_are_rejected_and_nothing_is_cached() {
    let model = model("tiny-gelu-new", 1, Isa::available()[0]);
    let mut cache = model.kv_cache(96, KvPrecision::F32);
    let mut error_of = |tokens: &[u32]| {
        let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::Last };
        let error = model.forward(&mut [segment], &mut Workspace::new(), &mut ()).unwrap_err();
        assert_eq!(cache.len(), 0);
        error.to_string()
    };
    assert_eq!(error_of(&[3, 97]), "token id 97 is outside the vocabulary (0 to 96)");
    assert_eq!(error_of(&[1; 97]), "the prompt is 97 tokens long, but the model's context is 96 tokens");
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
