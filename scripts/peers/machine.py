"""What the numbers were measured on: processor, cores, memory's read bandwidth, versions."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

WORKER = "bandwidth"

READ_BYTES = 512 << 20  # well beyond any cache's size
INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "bf16"),
)


def cores():
    """The logical cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpu_facts():
    """(name, instruction sets that matter here), as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    facts = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return facts.get("model name", platform.machine()), [name for name in INSTRUCTION_SETS if name in flags]


def describe():
    name, instruction_sets = cpu_facts()
    return {
        "cpu": name,
        "instruction_sets": instruction_sets,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(packages):
    """pip package -> version, of those installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return found


def load():
    """Programs that wanted a core over the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def read_bandwidth(threads):
    """Bytes a second that `threads` threads read together, the best of a few passes.

    A dot product of a slice with itself reads each value once and does little
    else. BLAS must run it on one thread: the worker's environment says so.
    (`part @ part` would keep Python's lock, and one thread read at a time.)
    """
    import numpy as np

    values = np.ones(READ_BYTES // 4, np.float32)
    slices = np.array_split(values, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(6):
            begun = time.perf_counter()
            list(pool.map(lambda part: float(np.dot(part, part)), slices))
            best = max(best, values.nbytes / (time.perf_counter() - begun))
    return best
