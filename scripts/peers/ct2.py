"""CTranslate2. Its Generator runs the generation loop; a callback timestamps each token."""

import time

from .workload import Engine as BaseEngine

PACKAGES = {"ctranslate2": "ctranslate2", "numpy": "numpy"}
PRECISIONS = {"f32": "float32", "int8": "int8"}

END = "end"  # the random model has no tokenizer: ids serve as token names


def prepare(checkpoint, folder, precision, path):
    """Writes the float32 model; CTranslate2 quantizes it to int8 on load."""
    import numpy as np
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    config, tensors = checkpoint.config, checkpoint.tensors()
    spec = TransformerDecoderModelSpec.from_config(
        config["n_layer"], config["n_head"], pre_norm=True, activation=common_spec.Activation.GELUTanh
    )

    def norm(target, name):
        target.gamma = np.array(tensors[f"{name}.weight"])
        target.beta = np.array(tensors[f"{name}.bias"])

    def linear(target, name):
        target.weight = np.ascontiguousarray(tensors[f"{name}.weight"].T)
        target.bias = np.array(tensors[f"{name}.bias"])

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = np.array(tensors["wte.weight"])
    decoder.projection.weight = decoder.embeddings.weight
    decoder.position_encodings.encodings = np.array(tensors["wpe.weight"])
    norm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{i}.ln_1")
        linear(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{i}.ln_2")
        linear(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")

    spec.register_vocabulary([str(id) for id in range(config["vocab_size"] - 1)] + [END])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = END
    spec.config.layer_norm_epsilon = config["layer_norm_epsilon"]
    spec.validate()
    spec.optimize(quantization="float32")
    path.mkdir()
    spec.save(str(path))


class Engine(BaseEngine):
    def __init__(self, path, precision, threads, config):
        import ctranslate2

        self.generator = ctranslate2.Generator(
            str(path),
            device="cpu",
            compute_type=PRECISIONS[precision],
            inter_threads=1,
            intra_threads=threads,
        )

    def generate(self, prompts, tokens):
        names = [[str(id) for id in prompt] for prompt in prompts]
        count, stamps = 0, []

        def on_token(_):
            nonlocal count
            count += 1
            if count % len(prompts) == 0:
                stamps.append(time.perf_counter())
            return False

        start = time.perf_counter()
        results = self.generator.generate_batch(
            names,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=on_token,
        )
        return [result.sequences_ids[0] for result in results], start, stamps

    def logits(self, prompt):
        import numpy as np

        return np.array(self.generator.forward_batch([[str(id) for id in prompt]]))[0, -1]
