//! OpenAI's GPT-2 against published outputs (tests/data/real-gpt2.json names the sources). The model is not
//! part of the repository: `hornbook pull gpt2`, then `cargo test --release -- real_gpt2 --ignored`.

use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::sampling::SamplingParams;
use hornbook::{Hornbook, Options};
use serde::Deserialize;

#[derive(Deserialize)]
struct Published {
    greedy: Vec<Greedy>,
    next_token: NextToken,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    ids: Vec<u32>,
    continues: String,
}

#[derive(Deserialize)]
struct NextToken {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    ids: Vec<u32>,
    top: Vec<(u32, f32)>,
}

fn published() -> Published {
    serde_json::from_str(include_str!("data/real-gpt2.json")).unwrap()
}

fn gpt2() -> Hornbook {
    Hornbook::new(Checkpoint::open("gpt2").unwrap(), ThreadPool::new(0, Isa::choose().unwrap())).unwrap()
}

#[test]
#[ignore = "reads gpt2 from the Hugging Face cache"]
fn greedy_continuations_match_published() {
    let greedy = published().greedy;
    assert!(!greedy.is_empty());
    let gpt2 = gpt2();
    for Greedy { prompt, ids, continues } in greedy {
        assert_eq!(gpt2.encode(&prompt).unwrap(), ids, "{prompt}");
        let n = gpt2.encode(&continues).unwrap().len();
        let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let options = Options { sampling, max_tokens: Some(n), ..Options::default() };
        let text: String = gpt2.generate(&ids, &options).unwrap().map(|token| token.unwrap().text).collect();
        assert_eq!(text, continues, "{prompt}");
    }
}

/// The published logits may come from a quantized export: the best token is the same, and logits agree to 1%.
#[test]
#[ignore = "reads gpt2 from the Hugging Face cache"]
fn next_token_logits_match_published() {
    let cases = published().next_token.cases;
    assert!(cases.len() >= 5);
    let gpt2 = gpt2();
    for Case { prompt, ids, top } in cases {
        assert_eq!(gpt2.encode(&prompt).unwrap(), ids, "{prompt}");
        let mut session =
            hornbook::model::Session::new(gpt2.model(), ids.len(), Options::default().kv_precision);
        let logits = session.feed(&ids).unwrap();
        let argmax = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(argmax as u32, top[0].0, "{prompt}");
        for (id, expected) in top {
            let found = logits[id as usize];
            assert!(
                (found - expected).abs() <= 0.01 * expected.abs(),
                "{prompt}, token {id}: found {found}, published {expected}"
            );
        }
    }
}
