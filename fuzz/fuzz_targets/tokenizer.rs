//! Builds a tokenizer from arbitrary files, each preceded by its name and a line feed, and separated by zero
//! bytes: the result is a tokenizer, none, or a one-line error. A text is encoded and decoded.
#![no_main]

use std::borrow::Cow;
use std::path::PathBuf;

use hornbook::tokenizer::{PreToken, Tokenizer};
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "Once upon  a time,\n\n\tThe <|bot|> don't say \u{e9}\u{301}\u{1f600} 42 <|endoftext|> \0";

fuzz_target!(|input: &[u8]| {
    let files: Vec<(PathBuf, Cow<[u8]>)> = input
        .split(|&byte| byte == 0)
        .filter_map(|file| {
            let name = file.iter().position(|&byte| byte == b'\n')?;
            Some((str::from_utf8(&file[..name]).ok()?.into(), (&file[name + 1..]).into()))
        })
        .collect();
    let check = |error: hornbook::Error| assert!(!error.to_string().contains('\n'));
    match Tokenizer::from_files(&files) {
        Ok(None) => {}
        Ok(Some(tokenizer)) => {
            for parse_special in [true, false] {
                match tokenizer.encode(TEXT, parse_special) {
                    Ok(ids) => {
                        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                        tokenizer.decode(&ids);
                        match tokenizer.merge_steps(TEXT, parse_special) {
                            Ok(steps) => {
                                let merged = steps.iter().flat_map(PreToken::tokens);
                                assert!(merged.eq(&ids));
                            }
                            Err(error) => check(error),
                        }
                    }
                    Err(error) => check(error),
                }
            }
        }
        Err(error) => check(error),
    }
});
