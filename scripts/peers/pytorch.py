"""PyTorch through transformers: eager, with its KV cache, as a user would run it."""

from .workload import Engine as Stepping

PACKAGES = {"torch": "torch", "transformers": "transformers", "numpy": "numpy"}
PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "int8": "dynamic int8"}


def prepare(checkpoint, folder, precision, path):
    """transformers reads the checkpoint itself."""
    path.symlink_to(checkpoint.folder.resolve(), target_is_directory=True)


class Engine(Stepping):
    def __init__(self, path, precision, threads, config):
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = GPT2LMHeadModel.from_pretrained(path, dtype=dtype).eval()
        if precision == "int8":
            self.model = quantized(self.model)

    def start(self, prompts):
        self.cache = None
        return self.step_rows(prompts)

    def step(self, ids):
        return self.step_rows([[id] for id in ids])

    def step_rows(self, rows):
        return self.run(rows).argmax(-1).tolist()

    def run(self, rows):
        """Logits after each row, [sequences, vocab_size]."""
        ids = self.torch.tensor(rows)
        output = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        return output.logits[:, -1]

    def logits(self, prompt):
        self.cache = None
        return self.run([prompt])[0].float().numpy()


def quantized(model):
    """Every linear layer and the head in dynamic int8."""
    import torch
    from torch.ao.quantization import quantize_dynamic
    from transformers.pytorch_utils import Conv1D

    # quantize_dynamic knows Linear; GPT-2's Conv1D is one with the weight transposed.
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(*child.weight.shape)
                linear.weight.data = child.weight.data.T.contiguous()
                linear.bias.data = child.bias.data
                setattr(module, name, linear)
    return quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
