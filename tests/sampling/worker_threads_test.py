"""Two workers of a `ContinuousSampler`, each in a thread of its own."""

import itertools
import threading
import time

import pytest

from star_keras.sampling import ContinuousSampler

PREFIX = "Q: one?\nA: 1.\n\nQ: two?\nA: 2.\n\n"


@pytest.fixture(scope="module")
def sampler(gpt_j):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=24, batch_size=64)
    assert sampler.num_workers == 2
    return sampler


@pytest.fixture(scope="module")
def all_shapes():
    """What `decode` was called with in this module."""
    return set()


@pytest.fixture
def decoded(sampler, all_shapes, monkeypatch):
    """The slots and the cache length of each decode chunk of a test.

    The first two chunks wait for each other.
    """
    together = threading.Barrier(2, timeout=60)
    decoded, decode = [], sampler.steps.decode

    def recording_decode(variables, cache, write_index, prefix, *arguments):
        assert threading.current_thread() is not threading.main_thread()
        shape = cache[0][0].shape[::2]
        all_shapes.add((shape, bool(prefix)))
        decoded.append(shape)
        if len(decoded) <= 2:
            together.wait()
        return decode(variables, cache, write_index, prefix, *arguments)

    monkeypatch.setattr(sampler.steps, "decode", recording_decode)
    yield decoded
    assert decode._cache_size() == len(all_shapes)


def test_two_workers_refill_their_slots(
    sampler, decoded, gpt_j, prompts, run, requests
):
    wanted = requests(prompts * 3, PREFIX)
    plain = ContinuousSampler(gpt_j, max_new_tokens=24, batch_size=7)
    assert run(sampler, wanted) == run(plain, wanted)
    assert decoded[:2] == [(32, 64)] * 2
    assert 8 in {slots for slots, _ in decoded}


def test_two_workers_yield_in_the_same_order_whichever_is_slower(
    sampler, decoded, prompts, requests, monkeypatch
):
    wanted = requests(prompts, PREFIX)
    streams, insert = [], sampler.steps.ring.insert
    for late in (0, 1):
        calls = itertools.count()

        def slow_insert(*arguments, late=late, calls=calls):
            if next(calls) % 2 == late:
                time.sleep(0.1)
            return insert(*arguments)

        monkeypatch.setattr(sampler.steps.ring, "insert", slow_insert)
        streams.append(list(sampler.sample(wanted)))
    assert streams[0] == streams[1]


def test_samples_of_one_problem_go_to_both_workers(
    sampler, decoded, prompts, run, requests
):
    completions = run(sampler, requests([prompts[1]] * 64))
    assert len({c.text for c in completions}) == 1
    assert {slots for slots, _ in decoded} == {32}


def test_two_workers_end_with_a_failure_and_with_the_stream(
    sampler, decoded, prompts, requests, monkeypatch
):
    wanted = requests(prompts * 2)
    stream = sampler.sample(wanted)
    next(stream)
    stream.close()
    chunks = len(decoded)

    def failing_insert(*_):
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(sampler.steps.ring, "insert", failing_insert)
        with pytest.raises(MemoryError, match="no more"):
            list(sampler.sample(wanted))
    assert len(decoded) == chunks
    assert sum(map(len, sampler.sample(wanted))) == len(wanted)


@pytest.mark.parametrize("slots", [62, 65])
def test_fewer_slots_or_an_odd_number_have_one_worker(
    gpt_j, prompts, run, requests, monkeypatch, slots
):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=4, batch_size=slots)
    decode, threads = sampler.steps.decode, set()

    def recording_decode(variables, cache, *arguments):
        threads.add((threading.current_thread(), cache[0][0].shape[0]))
        return decode(variables, cache, *arguments)

    monkeypatch.setattr(sampler.steps, "decode", recording_decode)
    run(sampler, requests([prompt[-20:] for prompt in prompts[:20]]))
    assert sampler.num_workers == 1
    assert (threading.main_thread(), slots) in threads
    assert {thread for thread, _ in threads} == {threading.main_thread()}
