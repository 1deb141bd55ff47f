// A GPT-2 of two layers with numbers that mean nothing, in transformers' format, for what the built-in model is
// not: its tokens are bytes, its context has 1,024 of them, and it may have no tokenizer.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [n_layer, n_head, n_embd, n_positions, vocab_size] = [2, 2, 16, 1024, 257];

export function writeTinyModel(folder, { hasTokenizer = true, chatTemplate } = {}) {
  mkdirSync(folder, { recursive: true });
  const config = { model_type: "gpt2", n_layer, n_head, n_embd, n_positions, vocab_size, eos_token_id: 256 };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "model.safetensors"), weights());
  if (!hasTokenizer) return folder;
  // GPT-2's characters for bytes.
  const isPrintable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let others = 256;
  const vocab = {};
  for (let byte = 0; byte < 256; byte++) vocab[String.fromCodePoint(isPrintable(byte) ? byte : others++)] = byte;
  vocab["<|endoftext|>"] = 256;
  writeFileSync(join(folder, "vocab.json"), JSON.stringify(vocab));
  writeFileSync(join(folder, "merges.txt"), "#version: 0.2\n");
  if (chatTemplate) writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: chatTemplate }));
  return folder;
}

function weights() {
  const norm = (name) => [[`${name}.weight`, [n_embd]], [`${name}.bias`, [n_embd]]];
  const linear = (name, inputs, outputs) => [[`${name}.weight`, [inputs, outputs]], [`${name}.bias`, [outputs]]];
  const block = (_, i) => [
    ...norm(`h.${i}.ln_1`),
    ...linear(`h.${i}.attn.c_attn`, n_embd, 3 * n_embd),
    ...linear(`h.${i}.attn.c_proj`, n_embd, n_embd),
    ...norm(`h.${i}.ln_2`),
    ...linear(`h.${i}.mlp.c_fc`, n_embd, 4 * n_embd),
    ...linear(`h.${i}.mlp.c_proj`, 4 * n_embd, n_embd),
  ];
  const tensors = [
    ["wte.weight", [vocab_size, n_embd]],
    ["wpe.weight", [n_positions, n_embd]],
    ...Array.from({ length: n_layer }, block).flat(),
    ...norm("ln_f"),
  ];
  const header = {};
  const data = [];
  let [end, seed] = [0, 1];
  for (const [name, shape] of tensors) {
    const length = shape.reduce((a, b) => a * b);
    const values = Float32Array.from({ length }, () => 0.3 * Math.sin(seed++ * 12.9898));
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += 4 * length)] };
    data.push(Buffer.from(values.buffer));
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([size, json, ...data]);
}
