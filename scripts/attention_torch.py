"""Times torch's scaled_dot_product_attention for `hornbook bench attention --against torch`.

Reads one JSON line per measurement (a shape) and writes one (seconds per call, repeated samples). The first
line of output states torch's version.
"""

import json
import math
import sys
import time

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

MIN_SAMPLE_SECONDS = 5e-3  # minimum duration of one sample


def measure(queries, seq, batch, heads, head_dim, layers, threads, repeat):
    torch.set_num_threads(threads)
    # The last queries of a sequence: a query attends to its own position and those before it.
    mask = causal_lower_right(queries, seq) if 1 < queries < seq else None
    q = torch.randn(batch, heads, queries, head_dim)
    kv = [[torch.randn(batch, heads, seq, head_dim) for _ in range(2)] for _ in range(layers)]

    def sweep():
        start = time.perf_counter()
        for k, v in kv:
            scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=queries == seq)
        return time.perf_counter() - start

    sweep()
    sweeps = max(1, math.ceil(MIN_SAMPLE_SECONDS / sweep()))
    return [sum(sweep() for _ in range(sweeps)) / (sweeps * layers) for _ in range(repeat)]


def send(message):
    print(json.dumps(message), flush=True)


send({"torch": torch.__version__})
with torch.inference_mode():
    for line in sys.stdin:
        try:
            send({"seconds": measure(**json.loads(line))})
        except (RuntimeError, MemoryError) as error:
            send({"error": str(error)})
