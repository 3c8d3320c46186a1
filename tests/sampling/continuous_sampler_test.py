import itertools
import random
import threading
import time

import jax
import numpy as np
import pytest

from star_keras.models import GPTJCausalLM
from star_keras.sampling import BatchSampler, ContinuousSampler, get_sampler
from star_keras.sampling.continuous_sampler import bucket
from tests.conftest import run_on_eight_devices

PREFIX = "Q: one?\nA: 1.\n\nQ: two?\nA: 2.\n\n"


def ragged_prompts(count=64):
    generator = random.Random(0)
    return [
        "".join(generator.choices("abcxyz 0123?\n", k=generator.randint(1, 40))) + ":"
        for _ in range(count)
    ]


PROMPTS = ragged_prompts()


@pytest.fixture
def model(make_model):
    """Ends about one completion in two before its 24th token."""
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(np.arange(258) == end, 2.0, 0.0))
    return model


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_greedy_equals_a_plain_uncached_loop(
    model, prefix, run, requests, plain_greedy
):
    """Whatever the number of slots, and the order of the requests."""
    expected = plain_greedy(model, [prefix + p for p in PROMPTS], 24, length=112)
    all_requests = requests(PROMPTS, prefix)
    generator = random.Random(1)
    reasons = set()
    for slots in (1, 7, 100):
        order = list(range(64))
        generator.shuffle(order)
        sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=slots)
        completions = run(sampler, [all_requests[i] for i in order])
        assert [c.text for c in completions] == [expected[i] for i in order], slots
        reasons |= {c.finish_reason for c in completions}
    assert reasons == {"stop", "length"}


def test_long_prompts_of_any_length_equal_a_plain_loop(
    make_model, run, requests, plain_greedy
):
    """Prompts and caches are rounded up to different lengths."""
    model = make_model(max_sequence_length=256)
    prompts = ["x" * (n - 1) + ":" for n in (66, 100, 131, 150, 196, 225)]
    for prompt in prompts:
        sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=2)
        (completion,) = run(sampler, requests([prompt]))
        assert [completion.text] == plain_greedy(model, [prompt], 24, length=256)


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 20}, {"top_p": 0.9}])
def test_samples_do_not_depend_on_the_slots_or_the_order(model, kwargs, run, requests):
    arguments = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5, **kwargs}
    wanted = requests(PROMPTS[:24], PREFIX)
    expected = run(ContinuousSampler(model, batch_size=24, **arguments), wanted)
    few = ContinuousSampler(model, batch_size=4, **arguments)
    assert run(few, wanted[::-1])[::-1] == expected
    assert run(few, wanted[5:6]) == expected[5:6]
    other = ContinuousSampler(model, batch_size=24, **{**arguments, "seed": 6})
    assert run(other, wanted) != expected


def test_prefix_changes_nothing_but_the_work(model, run, requests):
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=8)
    apart = run(sampler, requests(PROMPTS[:16], PREFIX))
    assert run(sampler, requests([PREFIX + p for p in PROMPTS[:16]])) == apart


@pytest.mark.parametrize("prefix", ["A: 2.\n\n", "A: 2.\n", "A:", "A: ", "\n\n"])
@pytest.mark.parametrize("question", ["Q: one?", "\nQ:", " two", "\n\n three"])
def test_prefix_and_rest_have_the_tokens_of_the_whole(
    model, prefix, question, requests
):
    sampler = ContinuousSampler(model, max_new_tokens=4)
    (whole,) = model.preprocessor.tokenizer([prefix + question])
    prefix_ids, (rest,) = sampler._tokenize(requests([question], prefix))
    assert prefix_ids + rest == list(whole)
    assert bool(prefix_ids) == bool(prefix.strip())


def test_stop_strings_end_a_completion_exactly(model, run, requests):
    sampler = ContinuousSampler(model, max_new_tokens=40, batch_size=6)
    wanted = requests(PROMPTS)
    free = run(sampler, wanted)
    # Of several tokens, on both sides of the first look at the text.
    long = next(c.text for c in free if len(c.text.encode()) > 30)
    for start, size in ((3, 3), (14, 4), (25, 2)):
        stop = long[start : start + size]
        stopped = 0
        for before, after in zip(free, run(sampler, wanted, [stop]), strict=True):
            if stop not in before.text:
                assert after == before
                continue
            stopped += 1
            assert after.text == before.text[: before.text.index(stop)]
            assert after.finish_reason == "stop"
            shown = len((after.text + stop).encode())
            assert after.num_tokens <= shown
        assert stopped


def test_samples_of_one_problem_share_its_prefill(model, run, requests):
    sampler = ContinuousSampler(
        model, max_new_tokens=24, batch_size=16, temperature=1.0
    )
    prefilled, placed = [], []
    prefill, place = sampler._prefill, sampler._place

    def counting_prefill(variables, token_ids, prefix):
        prefilled.append(int(token_ids.any(axis=1).sum()))
        return prefill(variables, token_ids, prefix)

    def counting_place(cache, at, new, lengths, source):
        placed.append(int((source >= 0).sum()))
        return place(cache, at, new, lengths, source)

    sampler._prefill, sampler._place = counting_prefill, counting_place
    completions = run(sampler, requests([PROMPTS[1]] * 8 + [PROMPTS[2]] * 8))
    assert (prefilled, placed) == ([2], [16])
    assert len({c.text for c in completions[:8]}) > 1


@pytest.mark.parametrize(("slots", "group_size"), [(7, 1), (16, 2), (20, 3)])
def test_all_groups_of_prompts_but_the_last_are_whole(
    model, run, requests, slots, group_size
):
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=slots)
    prefilled, enough = [], []
    prefill, decode = sampler._prefill, sampler._decode

    def counting_prefill(variables, token_ids, prefix):
        prefilled.append(int(token_ids.any(axis=1).sum()))
        return prefill(variables, token_ids, prefix)

    def recording_decode(*arguments):
        enough.append(int(arguments[-1]))
        return decode(*arguments)

    sampler._prefill, sampler._decode = counting_prefill, recording_decode
    run(sampler, requests(PROMPTS[:41]))
    assert sum(prefilled) == 41
    assert set(prefilled[:-1]) == {group_size}
    assert 1 <= prefilled[-1] <= group_size
    assert min(enough) >= 1


@pytest.fixture
def two_halves(model):
    """A sampler in two threads, and the shapes of the caches that they decode.

    The first two bursts wait for each other.
    """
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=64)
    together = threading.Barrier(2, timeout=60)
    shapes, decode = [], sampler._decode

    def recording_decode(variables, cache, *arguments):
        assert threading.current_thread() is not threading.main_thread()
        shapes.append(cache[0][0].shape[::2])
        if len(shapes) <= 2:
            together.wait()
        return decode(variables, cache, *arguments)

    sampler._decode = recording_decode
    yield sampler, shapes
    assert decode._cache_size() == len({shape[:2] for shape in shapes})


def test_two_threads_fill_their_slots_again(two_halves, model, run, requests):
    sampler, shapes = two_halves
    wanted = requests(PROMPTS * 3, PREFIX)
    plain = ContinuousSampler(model, max_new_tokens=24, batch_size=7)
    assert run(sampler, wanted) == run(plain, wanted)
    assert shapes[:2] == [(32, 64)] * 2
    assert 8 in {rows for rows, _ in shapes}


def test_two_threads_yield_in_the_same_order(two_halves, requests):
    sampler, _ = two_halves
    wanted = requests(PROMPTS, PREFIX)
    streams, place = [], sampler._place
    for late in (0, 1):
        calls = itertools.count()

        def slow_place(*arguments, late=late, calls=calls):
            if next(calls) % 2 == late:
                time.sleep(0.1)
            return place(*arguments)

        sampler._place = slow_place
        streams.append(list(sampler.sample(wanted)))
    assert streams[0] == streams[1]


def test_samples_of_one_problem_go_to_both_threads(two_halves, run, requests):
    sampler, shapes = two_halves
    completions = run(sampler, requests([PROMPTS[1]] * 64))
    assert len({c.text for c in completions}) == 1
    assert {rows for rows, _ in shapes} == {32}


def test_two_threads_end_with_a_failure_and_with_the_stream(two_halves, requests):
    sampler, shapes = two_halves
    wanted = requests(PROMPTS * 2)
    stream = sampler.sample(wanted)
    next(stream)
    stream.close()
    calls = len(shapes)
    place = sampler._place

    def failing_place(*_):
        raise MemoryError("no more")

    sampler._place = failing_place
    with pytest.raises(MemoryError, match="no more"):
        list(sampler.sample(wanted))
    assert len(shapes) == calls
    sampler._place = place
    assert sum(map(len, sampler.sample(wanted))) == len(wanted)


@pytest.mark.parametrize("slots", [62, 65])
def test_fewer_slots_or_an_odd_number_have_one_thread(model, run, requests, slots):
    sampler = ContinuousSampler(model, max_new_tokens=4, batch_size=slots)
    decode, threads = sampler._decode, set()

    def recording_decode(variables, cache, *arguments):
        threads.add((threading.current_thread(), cache[0][0].shape[0]))
        return decode(variables, cache, *arguments)

    sampler._decode = recording_decode
    run(sampler, requests(PROMPTS))
    assert (threading.main_thread(), slots) in threads
    assert {thread for thread, _ in threads} == {threading.main_thread()}


def test_the_lowered_steps_are_those_of_sample(make_model, run, requests):
    model = make_model(dtype="mixed_bfloat16")
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=16)
    called = {"prefill": [], "decode": []}

    def shapes(arguments):
        return [(x.shape, x.dtype) for x in jax.tree.leaves(arguments)]

    def recording(name, step):
        def call(*arguments):
            called[name].append(shapes(arguments))
            return step(*arguments)

        return call

    sampler._prefill = recording("prefill", sampler._prefill)
    sampler._decode = recording("decode", sampler._decode)
    run(sampler, requests(PROMPTS[:16], PREFIX))
    longest = max(len(sampler.tokenizer(p)) for p in PROMPTS[:16])
    lowered = ContinuousSampler(model, max_new_tokens=24, batch_size=16).lower(
        prefix_length=len(sampler.tokenizer(PREFIX)),
        prompt_length=longest,
        cache_length=longest,
    )
    for name, step in lowered.items():
        assert shapes(step.args_info) in called[name]


@pytest.mark.parametrize("lengths", [(64, 96), (96, 64), (64, 64)])
def test_a_resized_cache_keeps_the_newest_and_puts_the_next_first(model, lengths):
    sampler = ContinuousSampler(model, max_new_tokens=4, batch_size=2)
    before, after = lengths
    # Places hold when they were written; the next one is 10.
    times = np.roll(np.arange(before), 10)
    cache = jax.tree.map(
        lambda x: x + times[None, None, :, None].astype(x.dtype),
        model.build_cache(2, before),
    )
    cache = sampler._resize(cache, np.int32(10), after, 2)
    kept = min(lengths)
    for x in jax.tree.leaves(cache):
        assert x.shape[2] == after
        np.testing.assert_array_equal(
            x[0, 0, -kept:, 0], np.arange(before - kept, before)
        )
        assert not x[0, 0, :-kept, 0].any()


def test_compilations_are_bounded(model, run, requests):
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=8)
    # Three iterations: other weights, and other problems in another order.
    for seed in range(3):
        model.lm_head.bias.assign(model.lm_head.bias * 1.1)
        for prefix in ("", PREFIX, PREFIX[4:]):
            shuffled = random.Random(seed).sample(PROMPTS, 32 + seed)
            run(sampler, requests(shuffled, prefix))
    # Prompts of 2 to 41 tokens are prefilled at 32 or 48, and have caches of
    # 64, 80 or 96. All that with a prefix and without, the last tokens in 2 slots.
    assert sampler._prefill._cache_size() <= 1 + 2 * 2
    assert sampler._decode._cache_size() <= 3 * 2 * 2
    assert sampler._place._cache_size() <= 2 * 3
    # From none to each, from each to the longer ones, and from 96 to 64.
    assert sampler._resize._cache_size() <= (3 + 3 + 1) * 2
    assert 1 <= sampler._move._cache_size() <= 3


def test_lengths_have_few_buckets():
    lengths = (0, 1, 32, 33, 48, 49, 65, 192, 193, 768)
    buckets = [32, 32, 32, 48, 48, 64, 96, 192, 256, 768]
    assert [bucket(n, 32) for n in lengths] == buckets
    assert {bucket(n, 64) for n in range(2049)} == {
        *(64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
    }
    assert {bucket(n, 64, 4) for n in range(257)} == {
        *(64, 80, 96, 112, 128, 160, 192, 224, 256)
    }


def test_weights_of_the_moment_are_used(model, make_model, run, requests):
    sampler = ContinuousSampler(model, max_new_tokens=8, batch_size=4)
    wanted = requests(PROMPTS[:8], PREFIX)
    before = run(sampler, wanted)
    other = make_model(seed=1)
    model.set_weights(other.get_weights())
    after = run(sampler, wanted)
    assert after != before
    fresh = ContinuousSampler(other, max_new_tokens=8, batch_size=4)
    assert after == run(fresh, wanted)


def test_too_long_prompt_is_named_and_nothing_is_sampled(make_model, requests):
    model = make_model(max_sequence_length=62)
    sampler = ContinuousSampler(model, max_new_tokens=20)
    # The prefix has 30 tokens.
    stream = sampler.sample(requests(["short", "much too long"], PREFIX))
    with pytest.raises(ValueError, match="'problem 1' has 43 tokens.*63.* 62 of the"):
        next(stream)


def test_prompt_without_a_question_is_an_error(model, requests):
    sampler = ContinuousSampler(model, max_new_tokens=20)
    with pytest.raises(ValueError, match="'problem 0' is empty.*behind its prefix"):
        next(sampler.sample(requests([""], "A: 2.")))


def test_other_models_are_an_error(gpt2):
    with pytest.raises(ValueError, match="`GPTJCausalLM`.*`BatchSampler`"):
        ContinuousSampler(gpt2, max_new_tokens=4)


def test_get_sampler_suits_the_model(gpt2, model):
    assert isinstance(model, GPTJCausalLM)
    assert type(get_sampler(model, max_new_tokens=4)) is ContinuousSampler
    assert type(get_sampler(gpt2, max_new_tokens=4)) is BatchSampler


PROGRAM = """
import star_keras
import json
import sys
import jax
import keras
import numpy as np
from tokenizers import pre_tokenizers
from star_keras import distribution, models
from star_keras.sampling import ContinuousSampler, SampleRequest

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokens = ["<|endoftext|>", *alphabet, "qz"]

def make():
    keras.utils.set_random_seed(0)
    tokenizer = models.GPTJTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"])
    return models.GPTJCausalLM(
        models.GPTJBackbone(
            vocabulary_size=264, num_layers=2, num_heads=4, hidden_dim=32,
            intermediate_dim=64, rotary_dim=4),
        models.GPTJCausalLMPreprocessor(tokenizer))

prefix = "Q: one?\\nA: 1.\\n\\n"
requests = [
    SampleRequest(prompt=prefix + "Q" * i, name=str(i), seed=(i,), prefix=prefix)
    for i in range(1, 26)]

def results(model):
    found = []
    for temperature in (0.0, 1.0):
        sampler = ContinuousSampler(
            model, max_new_tokens=20, batch_size=8, temperature=temperature)
        done = {}
        for batch in sampler.sample(requests):
            done.update(batch)
        found.append([done[i].text for i in range(25)])
    return found, sampler

whole, _ = results(make())
keras.distribution.set_distribution(distribution.model_parallel("batch:2,model:4"))
split, sampler = results(make())
cache = sampler._resize(None, np.int32(0), 32, 8)
try:
    ContinuousSampler(sampler.model, max_new_tokens=4, batch_size=9)
except ValueError as error:
    message = str(error)
json.dump({
    "devices": jax.device_count(),
    "whole": whole,
    "split": split,
    "shape": cache[0][0].shape,
    "shard": cache[0][0].sharding.shard_shape(cache[0][0].shape),
    "compilations": [
        f._cache_size() for f in (sampler._prefill, sampler._place, sampler._decode)],
    "moves": sampler._move._cache_size(),
    "message": message,
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def on_eight_devices():
    """What the program above finds; JAX takes its devices at the start."""
    return run_on_eight_devices(PROGRAM)


@pytest.mark.slow
def test_split_model_writes_the_texts_of_the_whole_one(on_eight_devices):
    assert on_eight_devices["split"] == on_eight_devices["whole"]
    greedy, sampled = on_eight_devices["split"]
    assert greedy != sampled
    # The prefix and one length of prompts; 8 slots, and 2 for the last row; no
    # layout comes up later on.
    assert on_eight_devices["compilations"] == [2, 1, 2]
    assert on_eight_devices["moves"] == 1


@pytest.mark.slow
def test_cache_is_split_over_rows_and_heads(on_eight_devices):
    assert on_eight_devices["shape"] == [8, 4, 32, 8]
    assert on_eight_devices["shard"] == [4, 1, 32, 8]


@pytest.mark.slow
def test_slots_must_divide_by_the_batch_axis(on_eight_devices):
    assert "multiple of the 2 devices" in on_eight_devices["message"]
    assert "batch_size=9" in on_eight_devices["message"]
