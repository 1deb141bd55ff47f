"""PyTorch through transformers: eager mode with its KV cache."""

from .workload import Engine as BaseEngine

PACKAGES = {"torch": "torch", "transformers": "transformers", "numpy": "numpy"}
PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "int8": "dynamic int8"}


def prepare(checkpoint, folder, precision, path):
    """Links the checkpoint, which transformers reads directly."""
    path.symlink_to(checkpoint.folder.resolve(), target_is_directory=True)


class Engine(BaseEngine):
    def __init__(self, path, precision, threads, config):
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = GPT2LMHeadModel.from_pretrained(path, dtype=dtype).eval()
        if precision == "int8":
            self.model = quantize(self.model)

    def start(self, prompts):
        self.cache = None
        return self.step_rows(prompts)

    def step(self, ids):
        return self.step_rows([[id] for id in ids])

    def step_rows(self, rows):
        return self.run(rows).argmax(-1).tolist()

    def run(self, rows):
        """Returns the logits after each row, [sequences, vocab_size]."""
        ids = self.torch.tensor(rows)
        output = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        return output.logits[:, -1]

    def logits(self, prompt):
        self.cache = None
        return self.run([prompt])[0].float().numpy()


def quantize(model):
    """Quantizes all linear layers and the LM head to dynamic int8."""
    import torch
    from torch.ao.quantization import quantize_dynamic
    from transformers.pytorch_utils import Conv1D

    # quantize_dynamic supports only Linear; GPT-2's Conv1D is a Linear with a transposed weight.
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(*child.weight.shape)
                linear.weight.data = child.weight.data.T.contiguous()
                linear.bias.data = child.bias.data
                setattr(module, name, linear)
    return quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
