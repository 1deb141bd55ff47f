#!/usr/bin/env python3
"""Write the LoRA adapters under tests/data/adapters and their logits, which peft computes.

Run by hand, after make_reference.py, with the versions of scripts/requirements.txt; seeds are
fixed, so a second run writes the same files. Each folder tests/data/adapters/MODEL/NAME is
an adapter as peft saves it, with

reference.safetensors
    input_ids    [n]         I64, those of the model's reference.safetensors
    logits       [n, vocab]  F32, of the model with the adapter
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging
except ImportError as error:
    sys.exit(f"make_adapter_reference.py: {error.name} is not installed: pip install -r scripts/requirements.txt")

EXAMPLES = """examples:
  python scripts/make_adapter_reference.py            # write the references
  python scripts/make_adapter_reference.py --check    # load the adapters again and compare
  python scripts/make_adapter_reference.py --logits FILE MODEL [ADAPTER]    # logits of ids 0 to 9
"""

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"

ALL = ["c_attn", "c_proj", "c_fc"]
# By model; the names say what is particular.
ADAPTERS = {
    "tiny-gelu-new": {
        "c-attn": dict(r=4, lora_alpha=12),
        "all-linear": dict(r=3, lora_alpha=3, target_modules="all-linear"),
        "patterns": dict(
            r=4, lora_alpha=8, target_modules=ALL,
            rank_pattern={"h.1.attn.c_proj": 2, "mlp.c_proj": 6}, alpha_pattern={"c_fc": 20, "h.0.attn.c_attn": 2},
        ),
        "rslora": dict(r=5, lora_alpha=3, target_modules=ALL, use_rslora=True),
        "modules-to-save": dict(r=2, lora_alpha=6, modules_to_save=["wte", "wpe", "ln_1", "ln_f"]),
        # Of no effect: peft looks for lm_head or embed_tokens in modules_to_save.
        "tied-head": dict(r=2, lora_alpha=6, modules_to_save=["wte"], ensure_weight_tying=True),
        "bias-lora-only": dict(r=2, lora_alpha=6, target_modules=ALL, bias="lora_only"),
        "bias-all": dict(r=2, lora_alpha=6, target_modules=["mlp.c_fc"], bias="all"),
        "one-layer": dict(r=20, lora_alpha=6, target_modules=ALL, layers_to_transform=[1], exclude_modules=["mlp.c_proj"]),
    },
    "tiny-relu-untied": {
        "expression": dict(r=3, lora_alpha=9, target_modules=r".*\.[02]\.(attn|mlp)\.c_(attn|fc)"),
        "lm-head": dict(r=3, lora_alpha=9, modules_to_save=["lm_head", "ln_2"]),
    },
}  # fmt: skip


def load(folder):
    return GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(ids[None]).logits[0].float()


def write(model_name, name, settings):
    torch.manual_seed(len(name))
    model = get_peft_model(load(DATA / model_name), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = 0.3 * torch.randn_like(parameter)
            if "lora_" in key:
                parameter.copy_(noise)
            else:  # a copy of the model's
                parameter.add_(noise)
    folder = DATA / "adapters" / model_name / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / "adapter_config.json"
    fields = json.loads(config.read_text())
    fields["base_model_name_or_path"] = model_name
    if isinstance(fields["target_modules"], list):
        fields["target_modules"].sort()
    config.write_text(json.dumps(fields, indent=2) + "\n")
    ids = load_file(DATA / model_name / "reference.safetensors")["input_ids"]
    save_file({"input_ids": ids, "logits": logits(model, ids)}, folder / "reference.safetensors")
    change = (logits(model, ids) - logits(load(DATA / model_name), ids)).abs().max()
    print(f"{model_name}/{name}: logits change by up to {change:.2f}")
    assert change > 0.5, "an adapter that changes nothing tests nothing"


def adapted(model_folder, folder):
    return PeftModel.from_pretrained(load(model_folder), folder).eval()


def check(model_name, name):
    folder = DATA / "adapters" / model_name / name
    reference = load_file(folder / "reference.safetensors")
    found = logits(adapted(DATA / model_name, folder), reference["input_ids"])
    difference = (found - reference["logits"]).abs().max()
    print(f"{model_name}/{name}: {difference:.1e}")
    assert difference < 1e-4


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="load the adapters again and compare")
    parser.add_argument("--logits", nargs="+", metavar="PATH", help="write the logits of a folder to a file")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    if args.logits:
        file, folder, *adapter = args.logits
        model = adapted(folder, adapter[0]) if adapter else load(folder)
        ids = torch.arange(10)
        save_file({"input_ids": ids, "logits": logits(model, ids)}, file)
        return
    for model_name, adapters in ADAPTERS.items():
        for name, settings in adapters.items():
            check(model_name, name) if args.check else write(model_name, name, settings)


if __name__ == "__main__":
    main()
