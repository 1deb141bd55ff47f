//! `fable`, the model that is compiled into the program and read where it lies.

/// The name users type for it.
pub const NAME: &str = "fable";

pub(super) static CONFIG: &[u8] = include_bytes!("../../models/fable/config.json");
pub(super) static TOKENIZER: &[u8] = include_bytes!("../../models/fable/tokenizer.json");
pub(super) static CHAT_TEMPLATE: &str = include_str!("../../models/fable/chat_template.jinja");
pub(super) static GENERATION_CONFIG: &[u8] = include_bytes!("../../models/fable/generation_config.json");
pub(super) static CARD: &str = include_str!("../../models/fable/MODEL_CARD.md");

/// `model.safetensors`, from the start of a cache line on.
pub(super) fn weights() -> &'static [u8] {
    &WEIGHTS.0
}

#[repr(align(64))]
struct CacheLineAligned<Bytes: ?Sized>(Bytes);

static WEIGHTS: &CacheLineAligned<[u8]> =
    &CacheLineAligned(*include_bytes!("../../models/fable/model.safetensors"));
