"""ONNX Runtime, on a graph of its fused operators with an in-place KV cache.

GroupQueryAttention with as many KV heads as query heads is GPT-2's attention;
past and present share one buffer, so no step copies the cache.
"""

from .workload import Engine as BaseEngine

PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx", "numpy": "numpy"}
PRECISIONS = {"f32": "f32", "int8": "dynamic int8", "int4": "MatMulNBits 4"}

GROUP_SIZE = 32  # int4 weights per scale


def prepare(checkpoint, folder, precision, path):
    """Writes the graph; int8 by onnxruntime's dynamic quantization, int4 by MatMulNBits, for all matrices."""
    import onnx

    if precision in ("f32", "int4"):
        onnx.save(graph(checkpoint, int4=precision == "int4"), path)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        graph(checkpoint),
        path,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        # the fused operators have no shape inference
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def quantize_int4(weight):
    """Quantizes a weight [in, out] to packed uint8 [out, in / GROUP_SIZE, GROUP_SIZE / 2] and scales f32.

    The layout of MatMulNBits: x = (q - 8) * scale, the even value in the low nibble of a byte.
    """
    import numpy as np

    groups = np.ascontiguousarray(weight.T).reshape(weight.shape[1], -1, GROUP_SIZE)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(-1, keepdims=True), -1)
    scales = largest / -8  # maps the value of the largest magnitude to -8 exactly
    steps = np.divide(groups, scales, out=np.zeros_like(groups), where=scales != 0)
    q = np.clip(np.rint(steps) + 8, 0, 15).astype(np.uint8)
    return q[..., 0::2] | q[..., 1::2] << 4, scales.reshape(-1)


def graph(checkpoint, int4=False):
    """Builds GPT-2 with a KV cache as an ONNX model."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    config, tensors = checkpoint.config, checkpoint.tensors()
    n_layer, n_embd, n_head = config["n_layer"], config["n_embd"], config["n_head"]
    nodes, weights = [], []
    cache_shape = ["batch", n_head, "max_length", n_embd // n_head]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["length"]),
        helper.make_tensor_value_info("last_index", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_length", TensorProto.INT32, []),
    ]
    logits_shape = ["batch", config["vocab_size"]]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits_shape)]

    def weight(name, array=None):
        array = np.asarray(tensors[name] if array is None else array, order="C")
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(op, inputs, output, domain="", more=(), **attributes):
        nodes.append(helper.make_node(op, inputs, [output, *more], name=output, domain=domain, **attributes))
        return output

    def fused(op, inputs, output, **attributes):
        return node(op, inputs, output, domain="com.microsoft", **attributes)

    def matmul(x, name, array, output):
        """Multiplies x by a weight [in, out]."""
        if not int4:
            return node("MatMul", [x, weight(name, array)], output)
        packed, scales = quantize_int4(array)
        operands = [x, weight(f"{name}.packed", packed), weight(f"{name}.scales", scales)]
        n_in, n_out = array.shape
        # accuracy_level 4: int8 activations, the fastest mode
        return fused(
            "MatMulNBits", operands, output, K=n_in, N=n_out, bits=4, block_size=GROUP_SIZE, accuracy_level=4
        )

    def linear(x, name):
        return matmul(x, name, tensors[f"{name}.weight"], f"{name}.product")

    def norm_weights(name):
        return [weight(f"{name}.weight"), weight(f"{name}.bias")]

    def add_and_norm(product, bias, residual, norm, output):
        """Computes residual + product + bias and its layer norm in one fused operator."""
        fused(
            "SkipLayerNormalization",
            [product, residual, *norm_weights(norm), weight(bias)],
            f"{output}.normed",
            more=["", "", output],
            epsilon=epsilon,
        )
        return output, f"{output}.normed"

    epsilon = config["layer_norm_epsilon"]
    node("Gather", [weight("wte.weight"), "input_ids"], "tokens")
    node("Gather", [weight("wpe.weight"), "position_ids"], "positions")
    x = node("Add", ["tokens", "positions"], "embedded")
    normed = node("LayerNormalization", [x, *norm_weights("h.0.ln_1")], "embedded.normed", epsilon=epsilon)
    for i in range(n_layer):
        h = f"h.{i}"
        product = linear(normed, f"{h}.attn.c_attn")
        qkv = node("Add", [product, weight(f"{h}.attn.c_attn.bias")], f"{h}.qkv")
        for name in "key", "value":
            inputs.append(helper.make_tensor_value_info(f"past.{i}.{name}", TensorProto.FLOAT, cache_shape))
            outputs.append(
                helper.make_tensor_value_info(f"present.{i}.{name}", TensorProto.FLOAT, cache_shape)
            )
        attn_out = fused(
            "GroupQueryAttention",
            [qkv, "", "", f"past.{i}.key", f"past.{i}.value", "last_index", "total_length"],
            f"{h}.attn_out",
            more=[f"present.{i}.key", f"present.{i}.value"],
            num_heads=n_head,
            kv_num_heads=n_head,
        )
        product = linear(attn_out, f"{h}.attn.c_proj")
        x, normed = add_and_norm(product, f"{h}.attn.c_proj.bias", x, f"{h}.ln_2", f"{h}.residual")
        product = linear(normed, f"{h}.mlp.c_fc")
        hidden = fused("FastGelu", [product, weight(f"{h}.mlp.c_fc.bias")], f"{h}.hidden")
        product = linear(hidden, f"{h}.mlp.c_proj")
        next_norm = f"h.{i + 1}.ln_1" if i + 1 < n_layer else "ln_f"
        x, normed = add_and_norm(product, f"{h}.mlp.c_proj.bias", x, next_norm, f"{h}.out")
    node("Gather", [normed, weight("last", np.array(-1))], "last_position", axis=1)
    matmul("last_position", "lm_head", tensors["wte.weight"].T, "logits")

    model = helper.make_model(
        helper.make_graph(nodes, "gpt2", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model


class Engine(BaseEngine):
    def __init__(self, path, precision, threads, config):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.runtime, self.config = onnxruntime, config
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def reserve(self, sequences, length):
        import numpy as np

        heads = self.config["n_head"]
        shape = (sequences, heads, length, self.config["n_embd"] // heads)
        self.binding = self.session.io_binding()
        self.cache = []  # keeps the buffers alive: the binding stores only addresses
        for i in range(self.config["n_layer"]):
            for name in "key", "value":
                buffer = self.runtime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
                self.binding.bind_ortvalue_input(f"past.{i}.{name}", buffer)
                self.binding.bind_ortvalue_output(f"present.{i}.{name}", buffer)
                self.cache.append(buffer)
        self.scores = np.empty((sequences, self.config["vocab_size"]), np.float32)
        scores = self.runtime.OrtValue.ortvalue_from_numpy(self.scores)
        self.binding.bind_ortvalue_output("logits", scores)
        self.cache.append(scores)

    def start(self, prompts):
        self.position = 0
        return self.run(prompts).argmax(-1).tolist()

    def step(self, ids):
        return self.run([[id] for id in ids]).argmax(-1).tolist()

    def logits(self, prompt):
        self.reserve(1, len(prompt))
        self.position = 0
        return self.run([prompt])[0].copy()

    def run(self, rows):
        """Returns the logits after each row, [sequences, vocab_size]."""
        import numpy as np

        end = self.position + len(rows[0])
        self.binding.bind_cpu_input("input_ids", np.array(rows, np.int64))
        self.binding.bind_cpu_input("position_ids", np.arange(self.position, end, dtype=np.int64))
        self.binding.bind_cpu_input("last_index", np.full(len(rows), end - 1, np.int32))
        self.binding.bind_cpu_input("total_length", np.array(end, np.int32))
        self.session.run_with_iobinding(self.binding)
        self.position = end
        return self.cache[-1].numpy()
