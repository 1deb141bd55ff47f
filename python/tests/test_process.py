"""Threads, signals, forks, pickles and memory."""

import copy
import os
import pickle
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hornbook

PROMPT = "Once upon a time"


def test_several_threads_get_what_one_gets(model):
    alone = [model.generate(PROMPT, max_new_tokens=15, seed=seed).ids for seed in range(6)]
    logits = model.logits(PROMPT)
    with ThreadPoolExecutor(6) as threads:
        texts = threads.map(lambda seed: model.generate(PROMPT, max_new_tokens=15, seed=seed).ids, range(6))
        passes = threads.map(lambda _: model.run_with_hooks(PROMPT, {"hook_embed": lambda x: None}), range(6))
        assert list(texts) == alone
        assert all(np.array_equal(each, logits) for each in passes)


def test_other_threads_run_while_the_model_computes(model):
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(model.generate, PROMPT, max_new_tokens=300, seed=1)
        turns = 0
        while not result.done():
            turns += 1
            time.sleep(0.001)
    assert turns > 10


@pytest.mark.parametrize("options", [{}, {"hooks": {}}, {"num_beams": 8}])
def test_signal_is_heard_between_tokens(model, options):
    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.generate(PROMPT, max_new_tokens=10**6, min_new_tokens=10**6, context="shift", **options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - start < 5


def test_pickling_is_refused(model):
    for each in (model, model.tokenizer):
        for use in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied: call Model.from_pretrained"):
                use(each)


def test_fork_refuses_the_model_and_opens_its_own(model):
    expected = model.generate(PROMPT, max_new_tokens=5, seed=1).ids
    stream = model.stream(PROMPT)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(RuntimeError, match="before the process was forked"):
                model.generate(PROMPT)
            with pytest.raises(RuntimeError, match="before the process was forked"):
                model.logits(PROMPT)
            with pytest.raises(RuntimeError, match="before the process was forked"):
                next(stream)
            own = hornbook.Model.from_pretrained("fable")
            assert own.generate(PROMPT, max_new_tokens=5, seed=1).ids == expected
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_is_given_back(model):
    def work(rounds):
        for seed in range(rounds):
            model.logits([7] * 200)  # 3 MB
            model.run_with_cache([7] * 50)  # 7 MB
            model.generate(PROMPT, max_new_tokens=4, seed=seed)
            next(model.stream(PROMPT, seed=seed))

    def resident():
        pages = int(open("/proc/self/statm").read().split()[1])
        return pages * resource.getpagesize()

    work(5)
    before = resident()
    work(20)
    assert resident() - before < 60e6
