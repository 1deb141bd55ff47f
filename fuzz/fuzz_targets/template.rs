//! Opens arbitrary text as a chat template and renders it: a prompt within bounds, or a one-line error.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hornbook::Hornbook;
use hornbook::chat::{ChatMessage, ChatTemplate};
use libfuzzer_sys::fuzz_target;

static HORNBOOK: LazyLock<Hornbook> = LazyLock::new(|| Hornbook::open("fable").unwrap());

fuzz_target!(|text: &str| {
    let started = Instant::now();
    let messages = [ChatMessage::new("system", "Be brief."), ChatMessage::new("user", "Who are you?")];
    let template = ChatTemplate::parse("template.jinja".as_ref(), text);
    if let Err(error) = template.and_then(|template| template.apply(&messages, &HORNBOOK)) {
        assert!(!error.to_string().contains('\n'));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
});
