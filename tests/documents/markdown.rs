//! The parts of a Markdown document that can be checked.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// A document, read.
pub struct Document {
    /// From the repository's root.
    pub path: PathBuf,
    /// Fenced code blocks.
    pub blocks: Vec<Block>,
    /// Inline code.
    pub spans: Vec<Located>,
    /// Targets of links and images.
    pub links: Vec<Located>,
    /// Anchors of the headings, as GitHub derives them.
    pub anchors: Vec<String>,
}

/// A fenced code block.
pub struct Block {
    /// The words after the fence: `sh run`.
    pub info: String,
    /// Its content.
    pub text: String,
    /// Line of the fence, from 1.
    pub line: usize,
}

/// A piece of text and its line, from 1.
pub struct Located {
    pub text: String,
    pub line: usize,
}

impl Document {
    /// Reads `root/path`.
    pub fn read(root: &Path, path: PathBuf) -> Self {
        let text = read_to_string(root.join(&path)).unwrap();
        let mut document = Self { path, blocks: vec![], spans: vec![], links: vec![], anchors: vec![] };
        let (mut block, mut heading): (Option<Block>, Option<String>) = (None, None);
        for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = text[..range.start].matches('\n').count() + 1;
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some(Block { info, text: String::new(), line });
                }
                Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.extend(heading.take().map(|text| anchor(&text)));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(Located { text: dest_url.into_string(), line });
                }
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    document.spans.push(Located { text: code.into_string(), line });
                }
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&text),
                    (None, Some(heading)) => heading.push_str(&text),
                    (None, None) => {}
                },
                _ => {}
            }
        }
        document
    }

    /// `docs/serving.md:12`
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// A heading's anchor: lower case, spaces as hyphens, punctuation dropped.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn anchors_are_githubs() {
    assert_eq!(anchor("Hornbook against the machine's limits"), "hornbook-against-the-machines-limits");
    assert_eq!(anchor("The `same` bits, always"), "the-same-bits-always");
}
