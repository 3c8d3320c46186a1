import functools
import random

import jax
import numpy as np
import pytest

from star_keras import testing
from star_keras.models import load_causal_lm
from star_keras.sampling import BatchSampler, ContinuousSampler
from star_keras.testing import tiny_causal_lm
from star_keras.training.examples import tokenize_prompts
from tests.conftest import ROOT

PREFIX = "Q: one?\nA: 1.\n\nQ: two?\nA: 2.\n\n"


@pytest.fixture(scope="module")
def greedy(gpt_j):
    """Makes a greedy sampler with so many slots, once."""

    @functools.cache
    def greedy(slots):
        return ContinuousSampler(gpt_j, max_new_tokens=24, batch_size=slots)

    return greedy


@pytest.fixture(scope="module")
def warm(gpt_j):
    """A sampler with 16 slots and temperature 1."""
    return ContinuousSampler(gpt_j, max_new_tokens=24, batch_size=16, temperature=1.0)


@pytest.mark.parametrize(("prefix", "layers"), [("", 1), (PREFIX, 2)])
def test_greedy_equals_a_plain_uncached_loop(
    byte_tokenizer, prompts, prefix, layers, run, requests, plain_greedy
):
    """Whatever the number of slots, and the order of the requests."""
    model = testing.tiny_gpt_j(tokenizer=byte_tokenizer, num_layers=layers)
    end = np.arange(258) == byte_tokenizer.end_token_id
    # About one completion in two ends before its 24th token.
    model.lm_head.bias.assign(np.where(end, 1 + layers / 2, 0.0))
    expected = plain_greedy(model, [prefix + p for p in prompts], 24, length=112)
    all_requests = requests(prompts, prefix)
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
    gpt_j, run, requests, plain_greedy
):
    """Prompts and caches are rounded up to different lengths."""
    prompts = ["x" * (n - 1) + ":" for n in (66, 100, 131, 150, 196, 225)]
    sampler = ContinuousSampler(gpt_j, max_new_tokens=16, batch_size=1)
    texts = [run(sampler, requests([prompt]))[0].text for prompt in prompts]
    assert texts == plain_greedy(gpt_j, prompts, 16, length=256)


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 20}, {"top_p": 0.9}])
def test_samples_do_not_depend_on_the_slots_or_the_order(
    gpt_j, prompts, kwargs, run, requests
):
    arguments = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5, **kwargs}
    # Short prompts, which all are prefilled at one length.
    wanted = requests([prompt[-20:] for prompt in prompts[:24]], PREFIX)
    sampler = ContinuousSampler(gpt_j, batch_size=24, **arguments)
    expected = run(sampler, wanted)
    few = ContinuousSampler(gpt_j, batch_size=4, **arguments)
    assert run(few, wanted[::-1])[::-1] == expected
    assert run(few, wanted[5:6]) == expected[5:6]
    sampler.seed = 6
    assert run(sampler, wanted) != expected


def test_prefix_changes_nothing_but_the_work(greedy, prompts, run, requests):
    sampler = greedy(7)
    rests = [prompt[-10:] for prompt in prompts[:16]]
    apart = run(sampler, requests(rests, PREFIX))
    assert run(sampler, requests([PREFIX + rest for rest in rests])) == apart


@pytest.mark.parametrize("prefix", ["A: 2.\n\n", "A: 2.\n", "A:", "A: ", "\n\n"])
@pytest.mark.parametrize("question", ["Q: one?", "\nQ:", " two", "\n\n three"])
def test_prefix_and_rest_have_the_tokens_of_the_whole(
    greedy, prefix, question, requests
):
    sampler = greedy(7)
    (whole,) = sampler.tokenizer([prefix + question])
    rests = sampler.tokenize(requests([question], prefix))
    assert rests.prefix_ids + rests[0] == list(whole)
    assert rests[0]
    assert bool(rests.prefix_ids) or not prefix.strip()


@pytest.mark.parametrize("directory", ["llama_tied", "mistral", "qwen2", "gemma2"])
@pytest.mark.parametrize("prefix", ["Q: one (a).\n\n", "Q: two? ", "A:"])
def test_prefix_has_the_tokens_of_the_whole_by_any_tokenizer(
    directory, prefix, requests
):
    """Some join the end of a line with what stands before or behind it."""
    model = load_causal_lm(ROOT / "tests" / "fixtures" / "hugging_face" / directory)
    sampler = ContinuousSampler(model, max_new_tokens=2, batch_size=2)
    questions = ["Q: three?", "Quit"]
    texts = [prefix + question for question in questions]
    rests = sampler.tokenize(requests(questions, prefix))
    whole = tokenize_prompts(model.preprocessor, texts)
    assert [rests.prefix_ids + rest for rest in rests] == whole
    assert rests.prefix_ids and all(rests)


def test_padding_behind_learned_positions_harms_no_prompt(run, requests):
    """Prompts are prefilled in sizes that may go beyond the last position."""
    model = tiny_causal_lm("gpt2", max_sequence_length=100)
    prefix = "Q: one and two? A: 3. " * 2
    prompts = requests(["abc " * 10, "x?"], prefix)
    expected = run(BatchSampler(model, max_new_tokens=8, batch_size=2), prompts)
    found = run(ContinuousSampler(model, max_new_tokens=8, batch_size=2), prompts)
    assert found == expected
    assert len({c.text for c in found}) == 2


def test_stop_strings_end_a_completion_exactly(gpt_j, prompts, run, requests):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=40, batch_size=6)
    wanted = requests(prompts)
    free = run(sampler, wanted)
    # Of several tokens, in the first decode chunk, between two, and in the second.
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


def test_samples_of_one_problem_share_its_prefill(
    warm, prompts, run, requests, monkeypatch
):
    steps = warm.steps
    prefilled, inserted = [], []
    prefill, insert = steps.prefill, steps.ring.insert

    def counting_prefill(variables, token_ids, prefix):
        prefilled.append(int(token_ids.any(axis=1).sum()))
        return prefill(variables, token_ids, prefix)

    def counting_insert(cache, write_index, new, lengths, source):
        inserted.append(int((source >= 0).sum()))
        return insert(cache, write_index, new, lengths, source)

    monkeypatch.setattr(steps, "prefill", counting_prefill)
    monkeypatch.setattr(steps.ring, "insert", counting_insert)
    completions = run(warm, requests([prompts[1]] * 8 + [prompts[2]] * 8))
    assert (prefilled, inserted) == ([2], [16])
    assert len({c.text for c in completions[:8]}) > 1


@pytest.mark.parametrize("slots", [7, 16])
def test_a_prompt_is_prefilled_once_however_many_samples_wait(
    greedy, prompts, run, requests, monkeypatch, slots
):
    """More samples than slots, behind a shared prefix, among other prompts.

    Greedy: in another order of requests the logits round otherwise, which moves a draw
    at the border of two tokens.
    """
    sampler = greedy(slots)
    counts = [30, 1, 25, 2, 40]
    wanted = [prompts[i] for i, count in enumerate(counts) for _ in range(count)]
    wanted = requests(wanted, PREFIX)
    expected = run(sampler, wanted)
    prefilled, prefill = [], sampler.steps.prefill

    def counting_prefill(variables, token_ids, prefix):
        prefilled.append(int((token_ids > 0).sum()))
        return prefill(variables, token_ids, prefix)

    monkeypatch.setattr(sampler.steps, "prefill", counting_prefill)
    assert run(sampler, wanted[::-1])[::-1] == expected
    rests = sampler.tokenize(wanted)
    # A prompt's last token is left to the first decoding step of each sample.
    once = {tuple(rest): len(rest) - 1 for rest in rests}
    assert len(once) == 5
    assert sum(prefilled) == len(rests.prefix_ids) + sum(once.values())


@pytest.mark.parametrize(("slots", "group_size"), [(7, 1), (16, 2), (20, 3)])
def test_all_groups_of_prompts_but_the_last_are_whole(
    greedy, warm, prompts, run, requests, monkeypatch, slots, group_size
):
    sampler = warm if slots == 16 else greedy(slots)
    assert sampler.group_size == group_size
    prefilled, enough = [], []
    prefill, decode = sampler.steps.prefill, sampler.steps.decode

    def counting_prefill(variables, token_ids, prefix):
        prefilled.append(int(token_ids.any(axis=1).sum()))
        return prefill(variables, token_ids, prefix)

    def recording_decode(*arguments):
        enough.append(int(arguments[-1]))
        return decode(*arguments)

    monkeypatch.setattr(sampler.steps, "prefill", counting_prefill)
    monkeypatch.setattr(sampler.steps, "decode", recording_decode)
    run(sampler, requests([prompt[-20:] for prompt in prompts[:41]]))
    assert sum(prefilled) == 41
    assert set(prefilled[:-1]) == {group_size}
    assert 1 <= prefilled[-1] <= group_size
    assert min(enough) >= 1


def test_compilations_are_bounded(byte_tokenizer, prompts, run, requests):
    model = testing.tiny_gpt_j(tokenizer=byte_tokenizer, num_layers=1)
    end = np.arange(258) == byte_tokenizer.end_token_id
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=7)
    # Three iterations: other weights, and other problems in another order.
    for seed in range(3):
        model.lm_head.bias.assign(np.where(end, 1.4 + seed / 10, 0.0))
        for prefix in ("", PREFIX, PREFIX[4:]):
            shuffled = random.Random(seed).sample(prompts, 32 + seed)
            run(sampler, requests(shuffled, prefix))
    steps = sampler.steps
    # Prompts of 2 to 41 tokens are prefilled at 32 or 48, and have caches of
    # 64, 80 or 96. All that with a prefix and without, the last tokens in 1 slot.
    assert steps.prefill._cache_size() <= 1 + 2 * 2
    assert steps.decode._cache_size() <= 3 * 2 * 2
    assert steps.ring.insert._cache_size() <= 2 * 3
    # From none to each, from each to the longer ones, and from 96 to 64.
    assert steps.ring.resize._cache_size() <= (3 + 3 + 1) * 2
    assert 1 <= steps.ring.compact._cache_size() <= 3


def test_weights_of_the_moment_are_used(byte_tokenizer, prompts, run, requests):
    first, second = (
        testing.tiny_gpt_j(seed, byte_tokenizer, num_layers=1) for seed in (0, 1)
    )
    sampler = ContinuousSampler(first, max_new_tokens=8, batch_size=4)
    wanted = requests(prompts[:8], PREFIX)
    before = run(sampler, wanted)
    first.set_weights(second.get_weights())
    after = run(sampler, wanted)
    assert after != before
    fresh = ContinuousSampler(second, max_new_tokens=8, batch_size=4)
    assert after == run(fresh, wanted)


def test_the_lowered_steps_are_those_of_sample(
    byte_tokenizer, prompts, run, requests, monkeypatch
):
    model = testing.tiny_gpt_j(
        tokenizer=byte_tokenizer, num_layers=1, dtype="mixed_bfloat16"
    )
    sampler = ContinuousSampler(model, max_new_tokens=24, batch_size=16)
    called = {"prefill": [], "decode": []}

    def shapes(arguments):
        return [(x.shape, x.dtype) for x in jax.tree.leaves(arguments)]

    def recording(name, step):
        def call(*arguments):
            called[name].append(shapes(arguments))
            return step(*arguments)

        return call

    longest = max(len(sampler.tokenizer(p)) for p in prompts[:16])
    lowered = sampler.lower(
        prefix_length=len(sampler.tokenizer(PREFIX)),
        prompt_length=longest,
        cache_length=longest,
    )
    for name in called:
        step = recording(name, getattr(sampler.steps, name))
        monkeypatch.setattr(sampler.steps, name, step)
    run(sampler, requests(prompts[:16], PREFIX))
    for name, step in lowered.items():
        assert shapes(step.args_info) in called[name]


# === Errors ===


def test_too_long_prompt_is_named_and_nothing_is_sampled(make_model, requests):
    model = make_model(max_sequence_length=62)
    sampler = ContinuousSampler(model, max_new_tokens=20)
    # The prefix has 30 tokens.
    stream = sampler.sample(requests(["short", "much too long"], PREFIX))
    with pytest.raises(ValueError, match="'problem 1' has 43 tokens.*63.* 62 of the"):
        next(stream)


def test_prompt_without_a_token_is_an_error(greedy, requests):
    with pytest.raises(ValueError, match="'problem 0' is empty"):
        next(greedy(7).sample(requests([""])))
