//! `fable`, the model compiled into the program and used in place.

/// The model name.
pub const NAME: &str = "fable";

pub(super) static CONFIG: &[u8] = include_bytes!("../../models/fable/config.json");
pub(super) static TOKENIZER: &[u8] = include_bytes!("../../models/fable/tokenizer.json");
pub(super) static CHAT_TEMPLATE: &str = include_str!("../../models/fable/chat_template.jinja");
pub(super) static GENERATION_CONFIG: &[u8] = include_bytes!("../../models/fable/generation_config.json");
pub(super) static CARD: &str = include_str!("../../models/fable/MODEL_CARD.md");

/// The bytes of `model.safetensors`, aligned to 64 bytes.
pub(super) fn weights() -> &'static [u8] {
    &WEIGHTS.0
}

#[repr(align(64))]
struct Aligned64<Bytes: ?Sized>(Bytes);

static WEIGHTS: &Aligned64<[u8]> = &Aligned64(*include_bytes!("../../models/fable/model.safetensors"));
