"""A job on a Ray cluster of three nodes that loses a worker, a node and its driver: the texts are one machine's."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster

import hornbook
import hornbook.ray

N_PROMPTS = int(os.environ.get("PROMPTS", "5000"))
ARGUMENTS = {"max_new_tokens": 24, "seed": 5}
BEGINNINGS = ["The king said", "Once upon a time", "A little girl went", "The old fox asked", "In a wood there was"]


def prompts():
    return [f"{BEGINNINGS[i % len(BEGINNINGS)]} {i}" for i in range(N_PROMPTS)]


def digest(rows):
    rows = sorted((row["prompt"], row["completion"]) for row in rows)
    assert len({prompt for prompt, _ in rows}) == len(rows) == N_PROMPTS, f"{len(rows)} rows"
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def job(address, output):
    """The driver: writes the texts of all prompts to a folder."""
    ray.init(address=address, log_to_driver=False)
    dataset = ray.data.from_items([{"prompt": prompt} for prompt in prompts()], override_num_blocks=100)
    hornbook.ray.generate(dataset, num_cpus=1, batch_size=50, **ARGUMENTS).write_parquet(output)


def workers():
    listed = subprocess.run(["pgrep", "-f", "ray::MapWorker|ray::.*Writer"], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def start_driver(address, output):
    return subprocess.Popen([sys.executable, __file__, address, output], stderr=subprocess.DEVNULL)


def read(output):
    # Not by Ray, which may still count on the lost node.
    return parquet.read_table(output).to_pylist()


def main(folder):
    writer = hornbook.ray.Writer("fable", {"threads": 2}, "prompt", "completion", 5, {"max_new_tokens": 24})
    start = time.time()
    alone = writer({"prompt": prompts()})
    rows = [dict(zip(alone, row)) for row in zip(*alone.values())]
    expected, seconds = digest(rows), time.time() - start
    print(f"one machine, two threads: {N_PROMPTS} texts in {seconds:.0f} s, sha256 {expected}", flush=True)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)

    def check(name, output, start):
        found = digest(read(output))
        print(f"{name}: {time.time() - start:.0f} s, sha256 {found}", flush=True)
        assert found == expected, f"{name}: found other texts"

    start, output = time.time(), f"{folder}/losses"
    driver = start_driver(cluster.address, output)
    while not workers():
        time.sleep(0.5)
    time.sleep(5)
    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    print(f"killed worker {victim}", flush=True)
    time.sleep(5)
    assert driver.poll() is None, "the job was done before a node was lost"
    cluster.remove_node(nodes[1], allow_graceful=False)
    print("killed a node", flush=True)
    assert driver.wait() == 0
    check("a worker and a node killed", output, start)

    start, output = time.time(), f"{folder}/driver"
    driver = start_driver(cluster.address, output)
    while not (os.path.isdir(output) and os.listdir(output)):
        time.sleep(0.5)
    assert driver.poll() is None, "the job was done before its driver was killed"
    driver.kill()
    driver.wait()
    print("killed the driver, started again", flush=True)
    subprocess.run(["rm", "-rf", output], check=True)
    assert start_driver(cluster.address, output).wait() == 0
    check("the driver killed and started again", output, start)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        job(sys.argv[1], sys.argv[2])
    else:
        main(sys.argv[1])
