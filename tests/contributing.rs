//! What CONTRIBUTING.md shows is what there is.

use std::fs::read_to_string;
use std::path::Path;

fn file(path: &str) -> String {
    read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_kernel_of_the_walk_through_is_the_one_that_runs() {
    let (text, source) = (file("CONTRIBUTING.md"), file("src/kernels/attention/streaming.rs"));
    let chapter = text.split("\n## ").find(|chapter| chapter.starts_with("An attention kernel")).unwrap();
    // Its documentation has a block of its own, so the file ends where it ends.
    let shown = &chapter[chapter.find("```rust\n").unwrap() + "```rust\n".len()..];
    assert!(shown.starts_with(&(source.clone() + "```\n")), "CONTRIBUTING.md shows another streaming.rs");
    let code = source.lines().filter(|line| !line.starts_with("//") && !line.is_empty());
    assert!(code.count() <= 45, "a kernel to walk through is short");
    let list = file("src/kernels/attention/mod.rs");
    for line in ["mod streaming;", "pub use streaming::Streaming;", "&Streaming"] {
        assert!(chapter.contains(line) && list.contains(line), "{line} is not in both");
    }
}
