"""The machine: processor, cores, memory read bandwidth, package versions."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

WORKER = "bandwidth"

READ_BYTES = 512 << 20  # far larger than any cache
INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "bf16"),
)


def cores():
    """Returns the number of logical cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpu_facts():
    """Returns (CPU name, relevant instruction sets), as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    facts = dict([field.strip() for field in line.split(":", 1)] for line in lines if ":" in line)
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
    """Returns {pip package: version} of the installed packages."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return found


def load():
    """Returns the one-minute load average; 0 where the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def read_bandwidth(threads):
    """Returns the total read bandwidth of `threads` threads in bytes per second, the best of a few passes.

    A dot product of a slice with itself reads each value once and is memory
    bound. The worker's environment limits BLAS to one thread. (`chunk @ chunk`
    would hold the GIL and serialize the threads.)
    """
    import numpy as np

    values = np.ones(READ_BYTES // 4, np.float32)
    slices = np.array_split(values, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(6):
            start = time.perf_counter()
            list(pool.map(lambda chunk: float(np.dot(chunk, chunk)), slices))
            best = max(best, values.nbytes / (time.perf_counter() - start))
    return best
