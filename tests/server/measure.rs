//! `/measure`, which the page uses.

use super::client::{fable, serve};
use hornbook::kernels::attention::KERNELS;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|item| item[key] == value)
        .unwrap_or_else(|| panic!("{value}: {list}"))
}

#[test]
fn latest_completion_is_measured_by_operation() {
    let server = fable();
    let idle = server.get("/measure").ok();
    assert!(idle["latest"].is_null() && idle["limits"].is_null());
    assert_eq!(idle["engine"]["generated_tokens"], 0);
    let body = json!({"prompt": "Once upon a time there was", "max_tokens": 8, "ignore_eos": true});
    let usage = server.post("/v1/completions", body).ok()["usage"].clone();
    let measured = server.get("/measure?model=fable").ok();
    assert_eq!(measured["engine"]["generated_tokens"], 8);
    assert_eq!(measured["engine"]["prompt_tokens"], usage["prompt_tokens"]);
    assert!(measured["seconds"].as_f64() > idle["seconds"].as_f64());
    let latest = &measured["latest"];
    assert_eq!(latest["prompt_tokens"], usage["prompt_tokens"]);
    let [prefill, decode] = ["prefill", "decode"].map(|phase| find(&latest["phases"], "phase", phase));
    assert_eq!((&prefill["tokens"], &prefill["passes"]), (&usage["prompt_tokens"], &json!(1)));
    assert_eq!((&decode["tokens"], &decode["passes"]), (&json!(7), &json!(7)));
    // Two bytes per weight of c_fc, and 256 FLOPs for each of its 1024 neurons, in six layers.
    let c_fc = find(&decode["operations"], "operation", "mlp.c_fc");
    assert_eq!((&c_fc["calls"], &c_fc["flops"]), (&json!(42), &json!(7.0 * 6.0 * 2.0 * 256.0 * 1024.0)));
    assert!(c_fc["bound_by"].is_null(), "the limits are not known yet");
}

#[test]
fn limits_bound_the_operations_once_they_are_measured() {
    let server = fable();
    server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 3})).ok();
    let limits = server.post("/measure/limits", json!({})).ok();
    assert!(limits["bandwidth_gb_per_s"].as_f64().unwrap() > 0.1, "{limits}");
    assert!(limits["peak_gflops"].as_f64().unwrap() > 0.1, "{limits}");
    // They are not measured again at once.
    assert_eq!(server.post("/measure/limits", json!({"model": "fable"})).ok(), limits);
    let measured = server.get("/measure").ok();
    assert_eq!(measured["limits"], limits);
    let decode = find(&measured["latest"]["phases"], "phase", "decode");
    for operation in decode["operations"].as_array().unwrap() {
        let [bytes, flops, seconds, fraction] = ["bytes", "flops", "seconds", "fraction_of_roofline"]
            .map(|field| operation[field].as_f64().unwrap_or_else(|| panic!("{field}: {operation}")));
        let memory = bytes / limits["bandwidth_gb_per_s"].as_f64().unwrap() / 1e9;
        let compute = flops / limits["peak_gflops"].as_f64().unwrap() / 1e9;
        assert_eq!(operation["bound_by"], if memory > compute { "memory" } else { "compute" });
        let expected = memory.max(compute) / seconds;
        assert!((fraction - expected).abs() <= 1e-9 * expected, "{operation}");
    }
}

#[test]
fn attention_kernels_are_compared_with_the_reference() {
    let server = fable();
    let compared = server.post("/measure/attention", json!({"seq": 40})).ok();
    let names: Vec<_> =
        compared["results"].as_array().unwrap().iter().map(|row| row["kernel"].clone()).collect();
    let expected: Vec<_> = KERNELS.iter().map(|kernel| json!(kernel.name())).collect();
    assert_eq!(names, expected);
    for row in compared["results"].as_array().unwrap() {
        let (seconds, error) = (row["median_seconds"].as_f64(), row["max_absolute_error"].as_f64());
        assert!(seconds.unwrap() > 0.0 && error.unwrap() < 1e-5, "{row}");
    }
    let body = json!({"kernels": ["flash"], "phase": "decode", "seq": 1024});
    let decode = server.post("/measure/attention", body).ok();
    assert_eq!((&decode["queries"], &decode["seq"], &decode["n_head"]), (&json!(1), &json!(1024), &json!(4)));
    assert_eq!(decode["results"].as_array().unwrap().len(), 1);
}

#[test]
fn measurements_refuse_what_they_cannot_measure() {
    let server = fable();
    for (body, param) in [
        (json!({"seq": 0}), "seq"),
        (json!({"seq": 1025}), "seq"),
        (json!({"seq": "long"}), "seq"),
        (json!({"phase": "training"}), "phase"),
        (json!({"kernels": ["flush"]}), "kernels"),
        (json!({"kernels": vec!["flash"; 99]}), "kernels"),
    ] {
        let error = server.post("/measure/attention", body.clone()).error();
        assert_eq!((error.0, error.2.as_deref()), (400, Some(param)), "{body}");
    }
    let server = serve(&["fable", "tiny-gelu-new"], |_| {});
    assert_eq!(server.get("/measure").error().0, 400);
    assert_eq!(server.get("/measure?model=none").error().0, 404);
    assert_eq!(server.post("/measure/limits", json!({"model": "none"})).error().0, 404);
    let other = server.get("/measure?model=tiny-gelu-new").ok();
    assert_eq!(other["model"], "tiny-gelu-new");
}

#[test]
fn requests_are_answered_while_kernels_are_measured() {
    let server = fable();
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| server.post("/measure/attention", json!({"seq": 1024})).ok());
        let (mut longest, mut answers) = (Duration::ZERO, 0);
        while !measured.is_finished() {
            let start = Instant::now();
            server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})).ok();
            longest = longest.max(start.elapsed());
            answers += 1;
        }
        assert!(answers > 1, "{answers} in {longest:?}");
        measured.join().unwrap();
    });
}
