"""Clients that send a completion again and again, and compare the texts with the expected ones."""

import http.client
import json
import re
import sys
import threading

BEGINNINGS = ["Once upon a time", "The king", "A fox", "The little princess"]
# The seed makes a text repeatable; the lengths differ, so that some are always in the middle.
STREAMS = [
    {"prompt": f"{BEGINNINGS[i % 4]} and the {i + 1}", "seed": i, "max_tokens": 120 + 20 * i, "stream": True}
    for i in range(16)
]
BATCHES = [
    {"prompt": [f"Chapter {i}. There was", f"Tale {i}: In the forest"], "n": 2, "seed": i, "max_tokens": 40}
    for i in range(4)
]


def request(port, method, path, body=None):
    """Returns the status and the text of a response; `OSError` or `HTTPException` if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def complete(port, body):
    """Returns the texts of a completion, streamed or not; `RuntimeError` if it is not whole."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    status, text = request(port, "POST", path, body)
    if status != 200:
        raise RuntimeError(f"status {status}: {text}")
    if not body.get("stream"):
        return [choice.get("text") for choice in json.loads(text)["choices"]]
    events = re.findall(r"^data: (.*)$", text, re.M)
    if events[-1:] != ["[DONE]"]:
        raise RuntimeError(f"the stream ended early: {events[-1:]}")
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return ["".join(choice["text"] for choice in choices)]


class Load:
    """A thread for each request, until the end of the `with` block; exits if a request was lost."""

    def __init__(self, port, expected):
        """`expected` are pairs of a request and its texts."""
        self.port, self.done, self.problems = port, threading.Event(), []
        self.counts = [0] * len(expected)
        self.bodies = [body for body, _ in expected]
        self.threads = [
            threading.Thread(target=self.send, args=(i, *pair)) for i, pair in enumerate(expected)
        ]

    def send(self, i, body, expected):
        while not self.done.is_set():
            try:
                texts = complete(self.port, body)
                if texts != expected:
                    self.problems.append(f"{body}: found {texts}, expected {expected}")
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
                self.problems.append(f"{body}: {error!r}")
            self.counts[i] += 1

    def answered(self, bodies=None):
        """The number of responses, to these requests or to all."""
        counts = zip(self.bodies, self.counts)
        return sum(count for body, count in counts if bodies is None or body in bodies)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()
        if self.problems:
            lost = "\n".join(self.problems[:5])
            sys.exit(f"{len(self.problems)} of {self.answered()} requests failed:\n{lost}")
