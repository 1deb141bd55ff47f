//! Names that other programs have for the options, subcommands and values of this one: llama.cpp, Ollama,
//! vLLM, transformers and OpenAI's clients.

/// An option, perhaps with a value, and other names for it. The first match that the subcommand has counts.
const OPTIONS: [(&str, &[&str]); 37] = [
    ("--temperature", &["--temp", "--heat"]),
    ("--temperature 0", &["--greedy", "--no-sample", "--no-sampling", "--argmax"]),
    ("--repetition-penalty", &["--repeat-penalty", "--rep-pen", "--penalty"]),
    ("--presence-penalty", &["--presence"]),
    ("--frequency-penalty", &["--frequency"]),
    ("--no-repeat-ngram-size", &["--no-repeat-ngram", "--ngram-size"]),
    ("--typical-p", &["--typical"]),
    ("--top-k", &["--topk", "-k"]),
    ("--top-p", &["--topp", "--nucleus"]),
    ("--beams", &["--num-beams", "--n-beams", "--beam", "--beam-size", "--beam-width", "-b"]),
    ("--early-stopping", &["--early-stop"]),
    (
        "--max-tokens",
        &[
            "--max-new-tokens",
            "--max-completion-tokens",
            "--n-predict",
            "--predict",
            "--num-predict",
            "--max-length",
            "--max-len",
            "--length",
            "--num-tokens",
            "--n-tokens",
            "--tokens",
            "-l",
        ],
    ),
    ("--min-tokens", &["--min-new-tokens", "--min-length"]),
    (
        "-n",
        &["--n", "--num", "--count", "--nsamples", "--num-samples", "--num-return-sequences", "--best-of"],
    ),
    ("--seed", &["-s", "--random-seed", "--rng-seed"]),
    (
        "--stop",
        &["-r", "--reverse-prompt", "--stop-sequence", "--stop-sequences", "--stop-string", "--until"],
    ),
    (
        "--context",
        &["-c", "--ctx", "--ctx-size", "--n-ctx", "--num-ctx", "--max-model-len", "--context-size"],
    ),
    ("--prompt-lookup", &["--lookup", "--speculative", "--prompt-lookup-num-tokens"]),
    ("--draft", &["-md", "--model-draft", "--draft-model", "--assistant-model", "--speculative-model"]),
    ("--threads", &["-t", "--n-threads", "--num-threads", "-j", "--jobs", "--cores", "--cpus"]),
    ("--prompt-file", &["-f", "--file", "--input", "--text-file", "-i"]),
    ("--prompt-ids", &["--ids", "--token-ids", "--input-ids"]),
    ("--precision", &["--dtype", "--torch-dtype", "--quantization", "--quantize", "--quant", "-q"]),
    (
        "--kv-precision",
        &["--kv-cache-dtype", "--cache-type-k", "--cache-type-v", "-ctk", "-ctv", "--kv-dtype"],
    ),
    ("--logprobs", &["--top-logprobs", "--n-probs", "--log-probs"]),
    ("--echo", &["--print-prompt", "--display-prompt", "--with-prompt"]),
    ("--stats", &["--verbose", "--timings", "--timing", "--time", "-v"]),
    ("--system", &["--system-prompt", "--sys"]),
    ("--template", &["--chat-template", "--chat-template-file", "--jinja"]),
    ("--chat-template", &["--template", "--chat-template-file", "--jinja"]),
    ("--load", &["--resume", "--continue", "--session"]),
    ("--keys", &["--api-key", "--api-keys", "--api-key-file"]),
    ("--alias", &["--served-model-name", "--model-alias", "-a"]),
    ("--max-concurrency", &["--parallel", "-np", "--max-num-seqs", "--concurrency", "--batch-size", "-b"]),
    ("--repeat", &["-r", "--repetitions", "--runs", "--iterations", "--iters"]),
    ("--output", &["--out", "--output-file", "--output-dir", "--outdir"]),
    ("--force", &["--overwrite", "-f", "-y"]),
];

/// Options of other programs for the prompt, which is an argument here.
pub const PROMPT_OPTIONS: [&str; 4] = ["--prompt", "-p", "--text", "-e"];

/// A subcommand, and other names for it.
const SUBCOMMANDS: [(&str, &[&str]); 18] = [
    ("generate", &["run", "complete", "gen", "continue", "predict", "infer", "sample", "completion"]),
    ("chat", &["run", "talk", "ask", "repl", "interactive"]),
    ("models", &["list", "ls", "tags", "model"]),
    ("list", &["ls", "show"]),
    ("add", &["create", "new"]),
    ("remove", &["rm", "delete", "del", "revoke"]),
    ("health", &["ps", "status", "ping", "ready", "top"]),
    ("show", &["info", "describe", "cat", "card"]),
    ("pull", &["download", "get", "fetch", "install", "clone"]),
    ("serve", &["server", "start", "api", "up", "daemon"]),
    ("tokens", &["tokenize", "encode", "decode", "tokenizer"]),
    ("perplexity", &["ppl", "eval", "evaluate", "score"]),
    ("bench", &["benchmark", "perf", "speed", "measure"]),
    ("quantize", &["quant", "convert", "compress"]),
    ("inspect", &["lens", "attention", "logit-lens", "analyze"]),
    ("explain", &["walkthrough", "tour", "learn"]),
    ("config", &["settings", "configure", "env"]),
    ("keys", &["key", "auth", "login", "token"]),
];

/// Subcommands of other programs that delete a model.
pub const DELETE: [&str; 4] = ["rm", "delete", "remove", "uninstall"];

/// A value, and other names for it.
const VALUES: [(&str, &[&str]); 10] = [
    ("int4", &["q4", "q4_0", "q4_1", "q4_k_m", "4bit", "4", "i4", "w4a16"]),
    ("int8", &["q8", "q8_0", "8bit", "8", "i8", "w8a8"]),
    ("f16", &["fp16", "float16", "half", "16"]),
    ("bf16", &["bfloat16"]),
    ("f32", &["fp32", "float32", "float", "full", "32"]),
    ("ids", &["tokens", "token-ids", "token_ids"]),
    ("text", &["txt", "plain"]),
    ("shift", &["slide", "sliding", "rolling"]),
    ("flash", &["flash-attention", "sdpa", "fa2", "default"]),
    ("textbook", &["eager", "naive", "reference"]),
];

/// The option of `names` that another program calls `given`, with its value if it stands for one.
pub fn option(given: &str, names: &[&str]) -> Option<&'static str> {
    let exact = OPTIONS.iter().filter(|(_, others)| others.contains(&given));
    exact.map(|(option, _)| *option).find(|option| {
        let name = option.split(' ').next().unwrap_or_default();
        names.contains(&name)
    })
}

/// The subcommands of `names` that another program calls `given`.
pub fn subcommands(given: &str, names: &[&str]) -> Vec<&'static str> {
    let known = SUBCOMMANDS.iter().filter(|(name, others)| names.contains(name) && others.contains(&given));
    known.map(|(name, _)| *name).collect()
}

/// The value of `values` that another program calls `given`.
pub fn value<'a>(given: &str, values: &[&'a str]) -> Option<&'a str> {
    let given = given.to_lowercase();
    let (value, _) =
        VALUES.iter().find(|(value, others)| values.contains(value) && others.contains(&&*given))?;
    values.iter().copied().find(|candidate| candidate == value)
}
