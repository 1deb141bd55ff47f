"""Restarts two replicas one after the other behind a proxy, while 16 clients stream and 4 send batches:

    python rolling_restart.py BINARY CONFIGURATION PROXY

CONFIGURATION is a file of `deploy`, in which only the addresses are replaced; PROXY is the program it is for.
The clients never repeat a request, so that one that fails is one lost. Needs only the standard library.
"""

import re
import sys
import time
from pathlib import Path

from load import BATCHES, STREAMS, Load, complete
from processes import Replica, free_ports, proxy

# Load before, between and after the restarts, in seconds; longer than Envoy's health checks are apart.
PAUSE = 1.5
# A text longer than the 256 bytes by which the proxies choose.
LONG = " ".join(f"{number} foxes and" for number in range(30))


def restart(number, replica, load):
    """Stops a replica as a deployment does, and starts it again."""
    time.sleep(PAUSE)
    running, before = replica.metric("hornbook_sequences_running"), load.answered()
    health, seconds, log = replica.drain()
    refused, meanwhile = len(re.findall("status=503", log)), load.answered() - before
    if health != 503:
        sys.exit(f"/health was {health} while the replica stopped, expected 503")
    replica.start()
    print(
        f"  replica {number}: stopped with {running:.0f} sequences running, all finished in {seconds:.1f} s; "
        f"{meanwhile} requests answered meanwhile, {refused} refused and passed on"
    )


def check_affinity(port, replicas):
    """Prompts that begin alike reach one replica and its prefix cache; others are spread."""

    def measure(requests):
        """Sends requests and returns how many each replica answered, and the prefix cache hits of both."""
        before = [counts(replica) for replica in replicas]
        for body in requests:
            complete(port, {**body, "max_tokens": 1})
        after = [counts(replica) for replica in replicas]
        gained = [[b - a for a, b in zip(*pair)] for pair in zip(before, after)]
        return [answered for answered, _ in gained], sum(hits for _, hits in gained)

    def counts(replica):
        answered = replica.metric('hornbook_requests_total{route="POST [a-z/]*completions",status="200"}')
        return answered, replica.metric("hornbook_prefix_cache_hits_total")

    def chat(text):
        return [{"role": "system", "content": LONG}, {"role": "user", "content": text}]

    for name, requests in [
        ("prompts", [{"prompt": f"{LONG} {i}"} for i in range(8)]),
        ("conversations", [{"messages": chat(f"Hello {i}")} for i in range(8)]),
    ]:
        answered, hits = measure(requests)
        if sorted(answered) != [0, 8] or hits < 7:
            sys.exit(f"{name} that begin alike: {answered} by replica, {hits:.0f} prefix cache hits")
    spread, _ = measure([{"prompt": f"{i} {LONG}"} for i in range(32)])
    if min(spread) < 4:
        sys.exit(f"32 prompts that begin differently: {spread} by replica")
    parts = " and ".join(f"{answered:.0f}" for answered in spread)
    print(f"  prompts that begin alike: all at one replica; 32 that do not: {parts}")


def main():
    binary, configuration, program = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    *ports, proxy_port = free_ports(3)
    with Replica(binary, ports[0]) as alone:
        expected = [(body, complete(alone.port, body)) for body in STREAMS + BATCHES]
    with (
        Replica(binary, ports[0]) as first,
        Replica(binary, ports[1]) as second,
        proxy(program, configuration, proxy_port, ports),
    ):
        print(f"{configuration.name}:")
        with Load(proxy_port, expected) as load:
            restart(1, first, load)
            restart(2, second, load)
            time.sleep(PAUSE)
        streams, batches = load.answered(STREAMS), load.answered(BATCHES)
        print(f"  {streams} streams and {batches} batches, none lost, every text that of one replica alone")
        check_affinity(proxy_port, [first, second])


main()
