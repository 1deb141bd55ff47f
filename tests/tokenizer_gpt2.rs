//! GPT-2's tokenizer, rebuilt from tiktoken's ranks, encodes and decodes exactly as tiktoken does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use hornbook::tokenizer::Tokenizer;
use proptest::prelude::*;
use tiktoken_rs::CoreBPE;

static TIKTOKEN: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::r50k_base().unwrap());

/// GPT-2's tokenizer, loaded from a `vocab.json` and a `merges.txt` generated from tiktoken's ranks.
static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_files(&gpt2_files()).unwrap().unwrap());

const RANKS: u32 = 50_256;

/// GPT-2's `bytes_to_unicode`, implemented independently of the library.
fn bytes_to_unicode() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|b| {
        if (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD) {
            return char::from(b as u8);
        }
        next += 1;
        char::from_u32(next - 1).unwrap()
    })
}

/// The merge that creates a token. tiktoken stores a rank for each token but no merges: applying the merges
/// of lower rank to the token's bytes leaves exactly the two tokens that are merged.
fn last_merge<'a>(token: &'a [u8], ranks: &HashMap<Vec<u8>, u32>) -> (&'a [u8], &'a [u8]) {
    let mut bounds: Vec<usize> = (0..=token.len()).collect();
    while bounds.len() > 3 {
        let rank = |i: usize| ranks.get(&token[bounds[i]..bounds[i + 2]]).copied();
        let (_, best) = (0..bounds.len() - 2)
            .filter_map(|i| Some((rank(i)?, i)))
            .min()
            .unwrap_or_else(|| panic!("{token:?} cannot be merged from tokens of lower rank"));
        bounds.remove(best + 1);
    }
    token.split_at(bounds[1])
}

fn gpt2_files() -> [(PathBuf, Cow<'static, [u8]>); 2] {
    let byte_to_char = bytes_to_unicode();
    let spell = |bytes: &[u8]| -> String { bytes.iter().map(|&b| byte_to_char[b as usize]).collect() };
    let mut ranks = HashMap::new();
    let mut vocab = serde_json::Map::new();
    let mut merges = String::from("#version: 0.2\n");
    for rank in 0..RANKS {
        let token = TIKTOKEN.decode_bytes(&[rank]).unwrap();
        if token.len() > 1 {
            let (left, right) = last_merge(&token, &ranks);
            merges += &format!("{} {}\n", spell(left), spell(right));
        }
        vocab.insert(spell(&token), rank.into());
        ranks.insert(token, rank);
    }
    vocab.insert("<|endoftext|>".into(), RANKS.into());

    let vocab = serde_json::to_vec(&vocab).unwrap();
    [("vocab.json".into(), vocab.into()), ("merges.txt".into(), merges.into_bytes().into())]
}

fn assert_matches_tiktoken(text: &str) {
    let ids = GPT2.encode(text, false).unwrap();
    assert_eq!(ids, TIKTOKEN.encode_ordinary(text), "{text:?}");
    assert_eq!(GPT2.decode(&ids), text);
    let ids = GPT2.encode(text, true).unwrap();
    assert_eq!(ids, TIKTOKEN.encode_with_special_tokens(text), "{text:?}");
    assert_eq!(GPT2.decode(&ids), text);
}

#[test]
fn rebuilt_vocabulary_matches_tiktoken() {
    assert_eq!(GPT2.vocab_size(), 50_257);
    assert_eq!(GPT2.token_to_id("<|endoftext|>"), Some(50_256));
    assert_eq!(GPT2.token_to_id("Ġthe"), Some(262));
    let ids = GPT2.encode("Hello, I'm a language model,", false).unwrap();
    assert_eq!(ids, [15496, 11, 314, 1101, 257, 3303, 2746, 11]);
    for id in 0..RANKS {
        assert_eq!(GPT2.token_bytes(id), TIKTOKEN.decode_bytes(&[id]).unwrap());
    }
    assert_eq!(GPT2.token_bytes(50_256), b"<|endoftext|>");
    assert_eq!(GPT2.token_bytes(50_257), b"");
    assert_eq!(GPT2.token_bytes(u32::MAX), b"");
}

/// A backtracking engine gives up on white space of more than 1,000,000 characters.
#[test]
fn long_white_space_is_split_from_the_rest() {
    let n = 1_000_001;
    let ids = GPT2.encode(&format!("a{}b  x", "\u{b}".repeat(n)), false).unwrap();
    let [tab] = GPT2.encode("\u{b}", false).unwrap()[..] else { panic!("not one token") };
    assert_eq!((ids[0], &ids[n + 1..]), (64, &[65, 220, 2124][..])); // unsplit, it ends with 1849, 87
    assert!(ids[1..=n].iter().all(|&id| id == tab));
}

/// A long text is encoded in pieces.
#[test]
fn long_texts_match_tiktoken() {
    let unit = "It's 1,234 words\u{a0}in\tall,  and\n\nthen some  \u{2003}  naïve 日本語 text \
        <|endoftext|> isn't it ' s ? ";
    assert_matches_tiktoken(&unit.repeat(2000));
    for parts in
        [["a", " ", "b"], ["", "\n ", "x"], [".", "  ", "'s"], ["\u{a0}", " ", "1"], ["é", " ", "\u{a0}!"]]
    {
        assert_matches_tiktoken(&parts.concat().repeat(20_000));
    }
}

/// A few thousand strings: every fragment, every pair of fragments, and longer pseudo-random concatenations.
#[test]
fn fragment_corpus_matches_tiktoken() {
    #[rustfmt::skip]
    let fragments = [
        "", " ", "  ", "   \t", "\n", "\r\n", "\n\n \n", "\t\tx", "\u{0}", "\u{1b}[31m", "\u{7f}", "\u{a0}",
        "\u{2003}\u{3000}", "\u{feff}", "\u{200b}", "\u{ad}", "\u{1f}\u{9f}", "Hello", " world", "don't",
        "I'LL we've they'd it's", "'s", "''t", "’s", "HTTPServer", "ﬁ", "1", "1234567890",
        " 3.14159e-10", "٣٤٥",
        "Ⅷ½²", "naïve café", "e\u{301}\u{323}a\u{30a}", "Zürich Straße", "привет мир", "Ελλάδα", "שלום",
        "مرحبا بالعالم", "हिन्दी", "ไทย", "日本語テキスト", "中文，測試。", "한국어", "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈🇩🇪", "𝔘𝔫𝔦",
        "\u{10ffff}", "\u{fffd}", "\u{e000}", "fn main() {\n    println!(\"{}\", x[0] + 1);\n}",
        "<div class='a'>",
        "https://x.org/?q=a&b=%20", "a_b-c.d/e\\f", "$$%^&*()", "...!!!???", "----====", "<|endoftext|>",
        "<|endoftext", "|>", "C:\\tmp\\", "\"quoted\"", "zzzzzzzzzzzzzzzz", "AaAaAaAa",
    ];
    for (i, a) in fragments.iter().enumerate() {
        assert_matches_tiktoken(a);
        for b in &fragments {
            assert_matches_tiktoken(&format!("{a}{b}"));
        }
        let pick = |k: usize| fragments[(i * 7 + k * k * 5 + k) % fragments.len()];
        assert_matches_tiktoken(&(0..12).map(pick).collect::<String>());
    }
    for n in [1, 2, 3, 5, 17, 100, 3000] {
        for unit in [" ", "\n", "\t ", "a", "ab", "0", "é", "😀", "=", " the", "' "] {
            assert_matches_tiktoken(&unit.repeat(n));
            assert_matches_tiktoken(&format!("{}end", unit.repeat(n)));
        }
    }
}

#[test]
fn special_tokens_are_plain_text_by_default() {
    let text = "<|endoftext|>";
    assert_eq!(GPT2.encode(text, true).unwrap(), [50_256]);
    let as_text = GPT2.encode(text, false).unwrap();
    assert!(as_text.len() > 1 && !as_text.contains(&50_256), "{as_text:?}");
    assert_eq!(GPT2.decode(&as_text), text);
    assert_eq!(GPT2.decode(&[50_256]), text);
}

#[test]
fn character_split_across_tokens_is_decoded() {
    let ids = GPT2.encode("🦀", false).unwrap();
    assert!(ids.len() > 1);
    assert_eq!(GPT2.decode(&ids[..1]), "\u{FFFD}");
    assert_eq!(GPT2.decode(&ids), "🦀");
    let with_unknown = [u32::MAX, ids[0], ids[1]];
    assert_eq!(GPT2.decode(&with_unknown), GPT2.decode(&ids[..2]));
}

proptest! {
    #[test]
    fn any_text_matches_tiktoken(text in prop_oneof![
        any::<String>(),
        "[ \\t\\n\\r\\u{a0}a'sdtlmrev0-9.,!😀é日\\u{301}\\u{0}-\\u{1f}]{0,60}",
        "(( ?[A-Za-z]{1,8}|'(s|t|re|ll|d)| ?[0-9]{1,6}| ?[,.;()]{1,3}|\\s{1,4})){0,20}",
    ]) {
        assert_matches_tiktoken(&text);
    }
}
