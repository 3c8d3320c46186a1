"""Requests that arrive and are cancelled while others are in flight."""

import queue
import random
import threading

import pytest

from star_keras.sampling import ContinuousSampler
from tests.sampling.bad_input_test import WRONG_STOP

PREFIX = "Q: one?\nA: 1.\n\nQ: two?\nA: 2.\n\n"
SIZES = {"max_new_tokens": 24, "temperature": 1.0}


@pytest.fixture(scope="module")
def sampler(gpt_j):
    return ContinuousSampler(gpt_j, batch_size=7, **SIZES)


@pytest.fixture(scope="module", params=[7, 64], ids=["one_worker", "two_workers"])
def any_sampler(request, gpt_j, sampler):
    if request.param == 7:
        return sampler
    return ContinuousSampler(gpt_j, batch_size=request.param, **SIZES)


@pytest.fixture(scope="module")
def wanted(prompts, requests):
    """64 requests, two of each prompt."""
    return requests([prompt for prompt in prompts[:32] for _ in range(2)])


@pytest.fixture(scope="module")
def expected(sampler, wanted, run):
    return run(sampler, wanted, ["?"])


@pytest.mark.parametrize("seed", [0, 1])
def test_completions_depend_on_neither_arrivals_nor_cancellations(
    any_sampler, wanted, expected, seed
):
    generator = random.Random(seed)
    waiting = list(range(len(wanted)))
    generator.shuffle(waiting)
    done, aborted = {}, set()
    with any_sampler.engine() as engine:
        while waiting or engine.has_unfinished_requests():
            several = [waiting.pop() for _ in range(min(5, len(waiting)))]
            engine.add_requests({i: wanted[i] for i in several}, stop=["?"])
            for i in generator.sample(range(len(wanted)), 4):
                unfinished = i not in waiting and i not in {*done, *aborted}
                was_unfinished = engine.abort_request(i)
                # A completion may be on its way already.
                assert unfinished or not was_unfinished
                aborted |= {i} if was_unfinished else set()
            for _ in range(2):
                batch = engine.step()
                assert not done.keys() & dict(batch).keys()
                done.update(batch)
        assert engine.step() == []
    assert done.keys() | aborted == set(range(len(wanted)))
    assert not done.keys() & aborted
    assert len(aborted) > 3
    assert all(completion == expected[i] for i, completion in done.items())


def test_a_waiting_queue_stops_nothing_in_flight(any_sampler, wanted, expected):
    arrivals, done = queue.Queue(), {}
    with any_sampler.engine() as engine:

        def feed():
            while (i := arrivals.get()) is not None:
                engine.add_request(i, wanted[i], stop=["?"])
            engine.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        for i in (0, 1, 2):
            arrivals.put(i)
        # The next arrives when those are done, while the feeder waits in the queue.
        for batch in engine:
            done.update(batch)
            if len(done) == 3:
                arrivals.put(3)
            elif len(done) == 4:
                arrivals.put(None)
        feeder.join()
    assert done == dict(enumerate(expected[:4]))


def test_a_request_without_stop_strings_is_beside_one_with(sampler, wanted, run):
    free = run(sampler, wanted[:2])
    stop = free[0].text[2:4]
    with sampler.engine() as engine:
        engine.add_request("free", wanted[0])
        engine.add_request("stopped", wanted[0], stop=[stop])
        engine.close()
        done = {i: completion for batch in engine for i, completion in batch}
    assert done["free"] == free[0]
    assert done["stopped"].text == free[0].text[: free[0].text.index(stop)]


def test_a_cancelled_request_leaves_its_slot_after_the_chunk(gpt_j, wanted):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=200, batch_size=1)

    def finish(engine):
        """The completions that come, and the number of steps until then."""
        done, steps = {}, 0
        while engine.has_unfinished_requests():
            done |= engine.step()
            steps += 1
        return done, steps

    with sampler.engine() as engine:
        engine.add_request("next", wanted[2])
        alone, num_steps = finish(engine)
        # The first one has the slot.
        engine.add_request("long", wanted[0])
        engine.step()
        engine.add_request("next", wanted[2])
        assert engine.abort_request("long")
        assert not engine.abort_request("long")
        assert not engine.abort_request("unknown")
        assert finish(engine) == (alone, num_steps)
        # The id is free again.
        engine.add_request("long", wanted[0])
        assert engine.abort_request("long")
        assert not engine.has_unfinished_requests()
        assert engine.step() == []


def test_the_prefix_of_an_engine_is_computed_once(
    sampler, prompts, requests, run, monkeypatch
):
    behind = requests(prompts[:4], PREFIX)
    expected = run(sampler, behind)
    rests = sampler.tokenize(behind)
    tokens, prefill = [], sampler.steps.prefill

    def counting_prefill(variables, token_ids, prefix):
        tokens.append((token_ids > 0).sum())
        return prefill(variables, token_ids, prefix)

    monkeypatch.setattr(sampler.steps, "prefill", counting_prefill)
    done = {}
    with sampler.engine(rests.prefix_ids) as engine:
        for i, request in enumerate(behind):
            engine.add_request(i, request)
            done.update(engine.step())
        engine.close()
        for batch in engine:
            done.update(batch)
    assert done == dict(enumerate(expected))
    assert sum(tokens) == len(rests.prefix_ids) + sum(len(rest) - 1 for rest in rests)


# === Errors ===


def test_bad_requests_are_refused_and_all_others_go_on(sampler, wanted, requests):
    (prefix_ids,) = sampler.tokenizer(["Q: one?\n"])
    alone, other, long = requests(["Q: one?\n", "Q: two?", "Q: one?\n" + "x" * 250])
    (fine,) = requests(["Q: one?\nA:"])
    with sampler.engine(prefix_ids) as engine:
        engine.add_request("fine", fine)
        for request in (alone, other):
            match = (
                f"`requests`.* 8 token ids.* {request.name!r}.*Leave out `prefix_ids"
            )
            with pytest.raises(ValueError, match=match):
                engine.add_requests({"a": fine, "b": request})
        with pytest.raises(ValueError, match="'problem 2' has 258 tokens.* 256 of the"):
            engine.add_requests({"a": fine, "b": long})
        with pytest.raises(ValueError, match=r"not in use.*requests=\['fine'\]"):
            engine.add_requests({"a": fine, "fine": fine})
        engine.add_request(1, fine)
        with pytest.raises(ValueError, match=r"not in use.*requests=\['fine', 1\]"):
            engine.add_requests({1: fine, "fine": fine})
        assert engine.abort_request(1)
        for stop in WRONG_STOP:
            with pytest.raises(ValueError, match="`stop`. Expected a sequence of tex"):
                engine.add_request("a", fine, stop=stop)
        engine.close()
        with pytest.raises(RuntimeError, match="closed.*no more requests"):
            engine.add_request("late", fine)
        assert [i for batch in engine for i, _ in batch] == ["fine"]
    with pytest.raises(RuntimeError, match="ended.*new engine"):
        engine.step()


def test_an_engine_that_is_fed_takes_no_other_requests(sampler, wanted):
    tokenized = sampler.tokenize(wanted[:3])
    with sampler.engine(tokenized.prefix_ids) as engine:
        engine.add_request("a", wanted[0])
        with pytest.raises(RuntimeError, match="has had requests. Expected a new"):
            engine.feed(tokenized)
        assert engine.abort_request("a")
        engine.feed(tokenized)
        assert not engine.abort_request(0)
        assert engine.has_unfinished_requests()
        with pytest.raises(RuntimeError, match="closed.*no more requests"):
            engine.add_request("late", wanted[0])
        with pytest.raises(RuntimeError, match="has had requests. Expected a new"):
            engine.feed(tokenized)
        assert sorted(i for batch in engine for i, _ in batch) == [0, 1, 2]
        assert not engine.has_unfinished_requests()


def test_an_engine_ends_with_a_failure(any_sampler, wanted, monkeypatch):
    def failing_insert(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(any_sampler.steps.ring, "insert", failing_insert)
    with any_sampler.engine() as engine:
        engine.add_requests(dict(enumerate(wanted)))
        with pytest.raises(MemoryError, match="no more"):
            engine.step()
        with pytest.raises(RuntimeError, match="ended"):
            engine.step()
        with pytest.raises(RuntimeError, match="closed"):
            engine.add_request("late", wanted[0])
