//! CONTRIBUTING.md matches the source.

use std::fs::read_to_string;
use std::path::Path;

fn file(path: &str) -> String {
    read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn contributing_shows_streaming_kernel_source() {
    let (text, source) = (file("CONTRIBUTING.md"), file("src/kernels/attention/streaming.rs"));
    let chapter = text.split("\n## ").find(|chapter| chapter.starts_with("An attention kernel")).unwrap();
    // The source contains a fence of its own, so the end of the code block is found by comparison.
    let code_block = &chapter[chapter.find("```rust\n").unwrap() + "```rust\n".len()..];
    assert!(
        code_block.starts_with(&(source.clone() + "```\n")),
        "the code in CONTRIBUTING.md differs from streaming.rs"
    );
    let code = source.lines().filter(|line| !line.starts_with("//") && !line.is_empty());
    assert!(code.count() <= 45, "the example kernel has more than 45 lines");
    let list = file("src/kernels/attention/mod.rs");
    let line = "streaming::Streaming,";
    assert!(chapter.contains(line) && list.contains(line), "{line} is missing in CONTRIBUTING.md or mod.rs");
}
