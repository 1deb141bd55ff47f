"""Times torch's scaled_dot_product_attention for `hornbook bench attention --against torch`.

One line of JSON in (a shape), one line out (seconds of a call, several times). The first line out says hello.
"""

import json
import math
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

SAMPLE = 5e-3  # the least that one sample takes


def measure(phase, seq, batch, heads, head_dim, layers, threads, repeat):
    torch.set_num_threads(threads)
    queries = seq if phase == "prefill" else 1
    q = torch.randn(batch, heads, queries, head_dim)
    pasts = [[torch.randn(batch, heads, seq, head_dim) for _ in range(2)] for _ in range(layers)]

    def sweep():
        start = time.perf_counter()
        for k, v in pasts:
            scaled_dot_product_attention(q, k, v, is_causal=phase == "prefill")
        return time.perf_counter() - start

    sweep()
    sweeps = max(1, math.ceil(SAMPLE / sweep()))
    return [sum(sweep() for _ in range(sweeps)) / (sweeps * layers) for _ in range(repeat)]


def say(answer):
    print(json.dumps(answer), flush=True)


say({"torch": torch.__version__})
with torch.inference_mode():
    for line in sys.stdin:
        try:
            say({"seconds": measure(**json.loads(line))})
        except (RuntimeError, MemoryError) as error:
            say({"error": str(error)})
