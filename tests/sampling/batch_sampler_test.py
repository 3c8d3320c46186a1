import pytest

from star_keras.sampling import BatchSampler

PROMPTS = [
    "Q: hi",
    "a",
    "the longest prompt of them all, by far: 0123456789",
    "Q: what\nA:",
    "x y z",
    "twenty bytes of text",
    "ab",
]


@pytest.fixture(scope="module")
def greedy(gpt2):
    return BatchSampler(gpt2, max_new_tokens=20, batch_size=3)


def test_greedy_equals_a_plain_uncached_loop(gpt2, run, requests, plain_greedy):
    """Whatever the batch size."""
    expected = plain_greedy(gpt2, PROMPTS, 20)
    assert len(set(expected)) > 3
    for batch_size in (1, 3, 16):
        sampler = BatchSampler(gpt2, max_new_tokens=20, batch_size=batch_size)
        texts = [c.text for c in run(sampler, requests(PROMPTS))]
        assert texts == expected, batch_size


@pytest.mark.parametrize(
    "prefix", ["Q: 1\nA: 2\n\n", "Q", "a prefix of many tokens\n\n"]
)
def test_shared_prefix_changes_nothing(
    greedy, gpt2, prefix, run, requests, plain_greedy
):
    texts = [c.text for c in run(greedy, requests(PROMPTS, prefix))]
    assert texts == plain_greedy(gpt2, [prefix + p for p in PROMPTS], 20)
    assert len(set(texts)) > 2


@pytest.mark.parametrize("prefix", ["", "Q: 1\nA: 2\n\n"])
def test_equal_prompts_of_a_batch_are_prefilled_once(
    gpt2, prefix, run, requests, plain_greedy, monkeypatch
):
    prompts = 5 * ["a prompt of some length, once:"] + 3 * [
        "another, a little longer!!:"
    ]
    wanted = requests(prompts, prefix)
    rows, call = [], gpt2.call_with_cache

    def recording(token_ids, *args):
        rows.append(token_ids.shape)
        return call(token_ids, *args)

    monkeypatch.setattr(gpt2, "call_with_cache", recording)
    sampler = BatchSampler(gpt2, max_new_tokens=20, batch_size=8)
    texts = [c.text for c in run(sampler, wanted)]
    assert texts == plain_greedy(gpt2, [prefix + p for p in prompts], 20)
    assert texts[0] != texts[-1]
    prefilled = [number for number, length in rows if length > 1]
    assert set(prefilled) == ({1, 2} if prefix else {2})
    drawn = BatchSampler(gpt2, max_new_tokens=20, batch_size=8, temperature=1.0)
    assert len({c.text for c in run(drawn, wanted)}) == 8


def test_gpt_j_is_sampled_as_well(gpt_j, run, requests, plain_greedy):
    sampler = BatchSampler(gpt_j, max_new_tokens=20, batch_size=7)
    texts = [c.text for c in run(sampler, requests(PROMPTS, "x\n\n"))]
    assert texts == plain_greedy(gpt_j, ["x\n\n" + p for p in PROMPTS], 20)


def test_samples_do_not_depend_on_the_batch_or_the_order(gpt2, run, requests):
    wanted = requests([prompt for prompt in PROMPTS if len(prompt) < 12])
    arguments = {"max_new_tokens": 20, "temperature": 1.0, "seed": 5}
    sampler = BatchSampler(gpt2, batch_size=7, **arguments)
    expected = run(sampler, wanted)
    few = BatchSampler(gpt2, batch_size=2, **arguments)
    assert run(few, wanted[::-1])[::-1] == expected
    sampler.seed = 6
    assert run(sampler, wanted) != expected


def test_stop_strings_end_a_completion_exactly(greedy, run, requests):
    free = run(greedy, requests(PROMPTS))
    # Two bytes from the middle of a completion stop just that.
    text = free[0].text
    stop = text[7:9]
    completions = run(greedy, requests(PROMPTS), stop=[stop])
    assert completions[0].text == text[: text.index(stop)]
    assert completions[0].finish_reason == "stop"
    for before, after in zip(free, completions, strict=True):
        assert stop not in after.text
        assert before.text.startswith(after.text)


def test_longest_completion_that_the_model_takes(gpt2, run, requests, plain_greedy):
    config = {**gpt2.backbone.get_config(), "max_sequence_length": 100}
    model = type(gpt2)(type(gpt2.backbone).from_config(config), gpt2.preprocessor)
    prompt = "x" * 59 + ":"
    sampler = BatchSampler(model, max_new_tokens=40, batch_size=1)
    (completion,) = run(sampler, requests([prompt]))
    assert [completion.text] == plain_greedy(model, [prompt], 40, length=100)


def test_too_long_prompt_is_named_and_nothing_is_sampled(make_model, requests):
    sampler = BatchSampler(make_model(max_sequence_length=32), max_new_tokens=20)
    stream = sampler.sample(requests(["short", "much too long a prompt"]))
    with pytest.raises(ValueError, match="'problem 1' has 22 tokens.*42.* 32 of the"):
        next(stream)
