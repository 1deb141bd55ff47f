//! Gradients, and ten steps of AdamW and of Muon, against PyTorch (scripts/make_training_reference.py), and
//! the same bits for any number of threads and micro-batches of the same tokens.

use crate::reference::{Reference, data};
use hornbook::checkpoint::Checkpoint;
use hornbook::checkpoint::adapter::{AdapterConfig, Modules};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::optimizers::adamw::AdamW;
use hornbook::kernels::optimizers::muon::Muon;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::train::{Batch, Optimizers, Scope, Trainer};

const ADAMW: Optimizers = Optimizers {
    adamw: AdamW { learning_rate: 0.003, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 },
    muon: None,
};
const MODELS: [&str; 7] = [
    "tiny-gelu-inverse-layer",
    "tiny-gelu-new",
    "tiny-gelu-tanh-unscaled",
    "tiny-one-head",
    "tiny-relu-untied",
    "tiny-silu-upcast",
    "tiny-sinusoidal",
];

fn trainer(model: &str, threads: usize, isa: Isa) -> Trainer {
    let checkpoint = Checkpoint::from_folder(&data(model)).unwrap();
    Trainer::new(&checkpoint, ThreadPool::new(threads, isa), 64).unwrap()
}

/// The sequences of the reference: token ids and the weight of each prediction.
fn sequences(reference: &Reference) -> Vec<(Vec<u32>, Vec<f32>)> {
    (0..3)
        .map(|i| (reference.integers(&format!("ids.{i}")), reference.values(&format!("weights.{i}"))))
        .collect()
}

fn batch(sequences: &[(Vec<u32>, Vec<f32>)]) -> Batch {
    let mut batch = Batch::default();
    sequences.iter().for_each(|(ids, weights)| batch.push_weighted(ids, weights));
    batch
}

#[test]
fn gradients_match_pytorch() {
    for model in MODELS {
        let reference = Reference::from_file(model, "training.safetensors");
        let mut trainer = trainer(model, 2, Isa::available()[0]);
        let loss = trainer.accumulate(&batch(&sequences(&reference))).unwrap();
        let expected = reference.doubles("loss")[0];
        assert!((loss - expected).abs() < 1e-5 * expected, "{model}: loss {loss}, expected {expected}");
        let names = reference.names("gradient.");
        assert_eq!(names.len(), trainer.layout().tensors.len(), "{model}: {names:?}");
        for place in &trainer.layout().tensors {
            let found = &trainer.gradients()[place.range.clone()];
            reference.assert_close(&format!("gradient.{}", place.name), found, 1e-4, model);
        }
    }
}

#[test]
fn ten_steps_of_adamw_match_pytorch() {
    for model in MODELS {
        let reference = Reference::from_file(model, "training.safetensors");
        let (losses, norms) = (reference.doubles("loss"), reference.doubles("gradient_norm"));
        let mut trainer = trainer(model, 2, Isa::available()[0]);
        let batch = batch(&sequences(&reference));
        for step in 0..10 {
            let (loss, norm) = (trainer.accumulate(&batch).unwrap(), trainer.gradient_norm());
            trainer.update(&ADAMW, (1.0 / norm).min(1.0) as f32);
            let expected = losses[step];
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{model}: step {step}: {loss}, expected {expected}"
            );
            let expected = norms[step];
            assert!(
                (norm - expected).abs() < 1e-4 * expected,
                "{model}: step {step}: {norm}, expected {expected}"
            );
        }
        let (loss, expected) = (trainer.loss(&batch).unwrap(), losses[10]);
        assert!((loss - expected).abs() < 1e-4 * expected, "{model}: {loss}, expected {expected}");
    }
}

#[test]
fn ten_steps_of_muon_match_pytorch() {
    let muon = Muon { learning_rate: 0.02, momentum: 0.95, weight_decay: 0.1 };
    let optimizers = Optimizers { muon: Some(muon), ..ADAMW };
    for model in MODELS {
        let reference = Reference::from_file(model, "training.safetensors");
        let mut trainer = trainer(model, 2, Isa::available()[0]);
        let batch = batch(&sequences(&reference));
        for (step, expected) in reference.doubles("muon_loss").into_iter().enumerate() {
            let loss = trainer.accumulate(&batch).unwrap();
            let norm = trainer.gradient_norm();
            trainer.update(&optimizers, (1.0 / norm).min(1.0) as f32);
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{model}: step {step}: {loss}, expected {expected}"
            );
        }
    }
}

/// Takes ten steps of AdamW and compares the losses with those of this name.
fn assert_losses(trainer: &mut Trainer, reference: &Reference, name: &str, model: &str) {
    let batch = batch(&sequences(reference));
    for (step, expected) in reference.doubles(name).into_iter().enumerate() {
        let loss = trainer.accumulate(&batch).unwrap();
        let norm = trainer.gradient_norm();
        trainer.update(&ADAMW, (1.0 / norm).min(1.0) as f32);
        assert!(
            (loss - expected).abs() < 1e-4 * expected,
            "{model}: {name}, step {step}: {loss}, expected {expected}"
        );
    }
}

fn trainer_of(scope: &Scope, model: &str, threads: usize) -> Trainer {
    let checkpoint = Checkpoint::from_folder(&data(model)).unwrap();
    let pool = ThreadPool::new(threads, Isa::available()[0]);
    Trainer::with_scope(&checkpoint, pool, 64, scope, 1).unwrap()
}

#[test]
fn last_layer_alone_matches_pytorch() {
    for model in MODELS {
        let reference = Reference::from_file(model, "training.safetensors");
        let mut trainer = trainer_of(&Scope::LastLayers(1), model, 2);
        let whole = Trainer::weights(&trainer).to_vec();
        assert_losses(&mut trainer, &reference, "last_layer_loss", model);
        let start = trainer.layout().blocks.last().unwrap().ln_1.weight.start;
        assert_eq!(trainer.weights()[..start], whole[..start], "{model}: what is not trained");
    }
}

#[test]
fn adapter_matches_peft() {
    let lora = AdapterConfig {
        r: 4,
        lora_alpha: 6.0,
        target_modules: Some(Modules::Expression("all-linear".into())),
        ..AdapterConfig::default()
    };
    let scope = Scope::Lora(Box::new(lora));
    for model in MODELS {
        let reference = Reference::from_file(model, "training.safetensors");
        let mut trainer = trainer_of(&scope, model, 2);
        let before = trainer.weights().to_vec();
        let mut values = vec![0.0; trainer.gradients().len()];
        for place in trainer.trained() {
            values[place.range.clone()].copy_from_slice(&reference.values(&format!("lora.{}", place.name)));
        }
        trainer.set_trained(&values);
        assert_ne!(trainer.weights(), before);
        trainer.accumulate(&batch(&sequences(&reference))).unwrap();
        assert_eq!(trainer.trained().len(), reference.names("lora_gradient.").len(), "{model}");
        for place in trainer.trained() {
            let found = &trainer.gradients()[place.range.clone()];
            reference.assert_close(&format!("lora_gradient.{}", place.name), found, 1e-4, model);
        }
        let mut trainer = trainer_of(&scope, model, 3);
        trainer.set_trained(&values);
        assert_losses(&mut trainer, &reference, "lora_loss", model);
    }
}

#[test]
fn new_adapter_changes_nothing() {
    let trainer = trainer_of(&Scope::Lora(Box::default()), "tiny-gelu-new", 1);
    let whole = trainer_of(&Scope::All, "tiny-gelu-new", 1);
    assert!(trainer.weights() == whole.weights() && trainer.gradients().len() < whole.gradients().len());
    let adapter = trainer.adapter().unwrap();
    assert!(adapter.low_rank.iter().all(|change| change.b.iter().all(|&x| x == 0.0)));
    assert!(adapter.low_rank.iter().all(|change| change.a.iter().any(|&x| x != 0.0)));
}

#[test]
fn weights_have_the_same_bits_for_any_threads_and_isa() {
    for model in ["tiny-gelu-new", "tiny-relu-untied"] {
        let sequences = sequences(&Reference::from_file(model, "training.safetensors"));
        let weights = |threads, isa| {
            let mut trainer = trainer(model, threads, isa);
            for _ in 0..3 {
                // Two micro-batches.
                trainer.accumulate(&batch(&sequences[..1])).unwrap();
                trainer.accumulate(&batch(&sequences[1..])).unwrap();
                trainer.update(&ADAMW, 0.5);
            }
            trainer.weights().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = weights(1, Isa::available()[0]);
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                assert_eq!(weights(threads, isa), expected, "{model}: {threads} threads, {isa:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_trained_is_one_line_error() {
    let mut trainer = trainer("tiny-gelu-new", 1, Isa::available()[0]);
    let mut outside = Batch::default();
    outside.push(&[1, 97], 1.0);
    let error = trainer.accumulate(&outside).unwrap_err().to_string();
    assert_eq!(error, "token id 97 is outside the vocabulary (0 to 96)");
    let mut long = Batch::default();
    long.push(&[1; 98], 1.0);
    assert!(trainer.loss(&long).unwrap_err().to_string().contains("97 tokens long"));
}
