//! Embeddings.

use super::client::{fable, open};
use base64::Engine as _;
use hornbook::model::{LogitsWanted, Observer, Segment, Session, Site, Workspace};
use serde_json::{Value, json};

#[test]
fn embeddings_are_floats_or_base64() {
    let server = fable();
    let hornbook = open("fable");
    let embed = |input: Value, format: Value| {
        server.post("/v1/embeddings", json!({"input": input, "encoding_format": format, "model": "ada"})).ok()
    };
    let floats = embed(json!(["The king", "A"]), json!("float"));
    let base64 = embed(json!(["The king", "A"]), json!("base64"));
    assert_eq!((&floats["object"], &floats["model"]), (&json!("list"), &json!("ada")));
    assert_eq!(floats["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let vector = |response: &Value, i: usize| -> Vec<f32> {
        serde_json::from_value(response["data"][i]["embedding"].clone()).unwrap()
    };
    for i in 0..2 {
        let item = &base64["data"][i];
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(i)));
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(item["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(decoded, vector(&floats, i));
    }
    assert_eq!(vector(&embed(json!("A"), Value::Null), 0), vector(&floats, 1));
    // The mean of the final hidden states, from an observer.
    let prompt = hornbook.encode("The king").unwrap();
    let mut sums = HiddenStateSum(vec![0.0; 256], 0);
    let mut session = Session::new(hornbook.model(), prompt.len(), hornbook.model().kv_precision());
    session.feed(&prompt).unwrap();
    let mut cache = hornbook.model().kv_cache(prompt.len(), None);
    let segment = Segment { tokens: &prompt, cache: &mut cache, logits: LogitsWanted::All };
    hornbook.model().forward(&mut [segment], &mut Workspace::new(), &mut sums).unwrap();
    for (actual, total) in vector(&floats, 0).iter().zip(&sums.0) {
        let expected = total / sums.1 as f32;
        assert!((actual - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{actual} {expected}");
    }
    assert_eq!(server.post("/v1/embeddings", json!({"input": ""})).error().2.as_deref(), Some("input"));
    assert_eq!(server.post("/v1/embeddings", json!({})).error().2.as_deref(), Some("input"));
    assert_eq!(
        server.post("/v1/embeddings", json!({"input": vec!["a"; 2049]})).error().2.as_deref(),
        Some("input")
    );
    let long = server.post("/v1/embeddings", json!({"input": vec![1; 513]}));
    assert_eq!(long.error().3.as_deref(), Some("context_length_exceeded"));
}

/// Sums final hidden states and counts them.
struct HiddenStateSum(Vec<f32>, usize);

impl Observer for HiddenStateSum {
    fn is_interested(&self, site: Site) -> bool {
        site == Site::FinalNorm
    }

    fn observe(&mut self, _: Site, values: ndarray::ArrayViewMutD<f32>) {
        for row in values.outer_iter() {
            self.0.iter_mut().zip(row.iter()).for_each(|(sum, x)| *sum += x);
            self.1 += 1;
        }
    }
}
