"""llama.cpp, through the C API bindings of llama-cpp-python."""

import ctypes
import json

from .workload import Engine as BaseEngine

PACKAGES = {"llama_cpp": "llama-cpp-python", "gguf": "gguf", "numpy": "numpy"}
PRECISIONS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}

END_OF_TEXT = "<|endoftext|>"

BLOCK_TENSORS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OTHER_TENSORS = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
}


def prepare(checkpoint, folder, precision, path):
    """Writes F32 with `gguf`; llama.cpp quantizes all matrices to the other precisions."""
    import llama_cpp

    source = folder / "llama.cpp-f32.gguf"
    if precision == "f32":
        write_f32(checkpoint, path)
        return
    if not source.exists():
        partial = source.with_suffix(".partial")
        write_f32(checkpoint, partial)
        partial.rename(source)
    params = llama_cpp.llama_model_quantize_default_params()
    native = PRECISIONS[precision]
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{native}")
    params.pure = True  # includes the tied LM head, which otherwise stays Q6_K
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama_model_quantize could not write {native}")


def write_f32(checkpoint, path, tokenizer=None):
    """Writes a checkpoint as GGUF, optionally with a folder's tokenizer, padded to the vocabulary size."""
    import gguf
    import numpy as np

    config = checkpoint.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config["vocab_size"])
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        add_tokenizer(writer, tokenizer, config["vocab_size"])
    for name, tensor in checkpoint.tensors().items():
        if name in OTHER_TENSORS:
            target = OTHER_TENSORS[name]
        else:
            _, layer, rest = name.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            target = f"blk.{layer}.{BLOCK_TENSORS[stem]}.{kind}"
            if tensor.ndim == 2:  # ggml stores weights as [out, in]
                tensor = tensor.T
        writer.add_tensor(target, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, folder, vocab_size):
    import gguf

    ids = json.loads((folder / "vocab.json").read_text())
    tokens = {id: token for token, id in ids.items()}
    merges = [
        line for line in (folder / "merges.txt").read_text().splitlines() if not line.startswith("#version")
    ]
    token_types = [
        gguf.TokenType.NORMAL if id in tokens else gguf.TokenType.UNUSED for id in range(vocab_size)
    ]
    token_types[ids[END_OF_TEXT]] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokens.get(id, f"[unused {id}]") for id in range(vocab_size)])
    writer.add_token_types(token_types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[END_OF_TEXT])


class Engine(BaseEngine):
    def __init__(self, path, precision, threads, config):
        import llama_cpp

        self.lib, self.threads, self.config = llama_cpp, threads, config
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self.contexts = {}
        self.batch = llama_cpp.llama_batch_init(config["n_positions"], 0, 1)

    def reserve(self, sequences, length):
        if sequences not in self.contexts:
            params = self.lib.llama_context_default_params()
            params.n_ctx = params.n_batch = self.config["n_positions"]
            params.n_seq_max = sequences
            params.n_threads = params.n_threads_batch = self.threads
            self.contexts[sequences] = self.lib.llama_init_from_model(self.model, params)
        self.context = self.contexts[sequences]
        if not self.context or length > self.lib.llama_n_ctx_seq(self.context):
            raise RuntimeError(
                f"llama.cpp: cannot create a context for {sequences} sequences of {length} tokens"
            )

    def start(self, prompts):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)
        self.position = 0
        return [int(logits.argmax()) for logits in self.run(prompts)]

    def step(self, ids):
        return [int(logits.argmax()) for logits in self.run([[id] for id in ids])]

    def logits(self, prompt):
        self.reserve(1, len(prompt))
        self.position = 0
        return self.run([prompt])[0].copy()

    def run(self, rows):
        """Appends rows of equal length; returns a view of the logits after each."""
        import numpy as np

        length, batch, last = len(rows[0]), self.batch, []
        batch.n_tokens = 0
        for sequence, row in enumerate(rows):
            for offset, id in enumerate(row):
                i = batch.n_tokens
                batch.token[i] = id
                batch.pos[i] = self.position + offset
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = sequence
                batch.logits[i] = offset == length - 1
                batch.n_tokens += 1
            last.append(batch.n_tokens - 1)
        status = self.lib.llama_decode(self.context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        self.position += length
        shape = (self.config["vocab_size"],)
        return [np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, i), shape) for i in last]
