"""`/v1/completions`, asked by the official client."""

import concurrent.futures

import openai
import pytest

from star_keras.sampling import (
    ContinuousSampler,
    SampleRequest,
    Scorer,
    ScoreRequest,
)
from tests.serving.conftest import PROMPT

PROMPTS = [PROMPT, "Input:\n7 + 8\nTarget:\n", "Input:\n1 2 3 + 4 5 6\nTarget:\n"]


def complete(client, prompt=PROMPT, **arguments):
    arguments = {"max_tokens": 60, "temperature": 0} | arguments
    return client.completions.create(model="tiny", prompt=prompt, **arguments)


def streamed(client, prompt=PROMPT, **arguments):
    """The parts of a stream, and `{index: (text, finish_reason)}`."""
    parts = list(complete(client, prompt, stream=True, **arguments))
    texts, reasons = {}, {}
    for part in parts:
        for choice in part.choices:
            assert choice.index not in reasons
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    return parts, {i: (texts[i], reasons[i]) for i in texts}


@pytest.fixture(scope="module")
def expected(model):
    """Completions of `PROMPTS` by our sampler."""
    sampler = ContinuousSampler(model, max_new_tokens=60, batch_size=4)
    requests = [SampleRequest(prompt=prompt, name=prompt) for prompt in PROMPTS]
    found = dict(pair for batch in sampler.sample(requests) for pair in batch)
    return [found[i] for i in range(3)]


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "star-keras"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.models.retrieve("gpt-5")


def test_completions_are_those_of_the_sampler(client, expected, model):
    answer = complete(client, PROMPTS)
    assert answer.object == "text_completion" and answer.model == "tiny"
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice, completion in zip(answer.choices, expected, strict=True):
        assert choice.text == completion.text
        assert choice.finish_reason == completion.finish_reason
        assert choice.logprobs is None
    lengths = [len(ids) for ids in model.preprocessor.tokenizer(PROMPTS)]
    usage = answer.usage
    assert usage.prompt_tokens == sum(lengths)
    assert usage.completion_tokens == sum(x.num_tokens for x in expected)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_prompts_may_be_token_ids(client, expected, model):
    rows = [list(map(int, ids)) for ids in model.preprocessor.tokenizer(PROMPTS)]
    answer = complete(client, rows, echo=True)
    texts = [p + x.text for p, x in zip(PROMPTS, expected, strict=True)]
    assert [choice.text for choice in answer.choices] == texts
    assert complete(client, rows[1]).choices[0].text == expected[1].text


def test_a_stream_has_the_same_text_in_parts(client, expected):
    parts, found = streamed(
        client, PROMPTS, echo=True, stream_options={"include_usage": True}
    )
    assert found == {
        i: (prompt + completion.text, completion.finish_reason)
        for i, (prompt, completion) in enumerate(zip(PROMPTS, expected, strict=True))
    }
    assert len(parts) > 3 * 3
    assert len({part.id for part in parts}) == 1
    assert [part.usage for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].usage == complete(client, PROMPTS).usage


def test_stop_strings_end_a_completion_and_never_show(client, expected):
    whole = expected[0].text
    stop = whole[20:23]
    before = whole[: whole.index(stop)]
    (choice,) = complete(client, stop=stop).choices
    assert (choice.text, choice.finish_reason) == (before, "stop")
    _, found = streamed(client, stop=["never", stop])
    assert found == {0: (before, "stop")}


def test_a_seed_repeats_its_completions_and_others_differ(client):
    # The model is sure of sums.
    arguments = {"prompt": "What", "temperature": 2, "n": 4, "max_tokens": 40}
    first, again = (complete(client, seed=5, **arguments) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices]
    assert len(set(texts)) > 1
    _, found = streamed(client, seed=5, **arguments)
    assert [found[i][0] for i in range(4)] == texts
    for seed in (-5, 2**62, None):
        other = complete(client, seed=seed, **arguments)
        assert [choice.text for choice in other.choices] != texts


def test_top_p_leaves_the_likeliest_tokens_only(client, expected):
    found = complete(client, temperature=2, top_p=1e-6, n=3)
    assert {choice.text for choice in found.choices} == {expected[0].text}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs_are_of_prompt_and_completion(client, model, stream):
    arguments = {"echo": True, "logprobs": 2, "max_tokens": 40}
    if stream:
        parts, found = streamed(client, **arguments)
        text, _ = found[0]
        several = [part.choices[0].logprobs for part in parts if part.choices]
        columns = [
            [x for log_probs in several for x in getattr(log_probs, name)]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        ]
    else:
        (choice,) = complete(client, **arguments).choices
        text, log_probs = choice.text, choice.logprobs
        columns = [
            log_probs.tokens,
            log_probs.token_logprobs,
            log_probs.top_logprobs,
            log_probs.text_offset,
        ]
    tokens, values, top, offsets = columns
    assert text.startswith(PROMPT)
    assert "".join(tokens).startswith(text)
    for token, offset in zip(tokens, offsets, strict=True):
        assert text[offset:].startswith(token) or offset == len(text)
    assert values[0] is top[0] is None
    tokenizer = model.preprocessor.tokenizer
    ids = [
        tokenizer.token_to_id(t.replace(" ", "Ġ").replace("\n", "Ċ")) for t in tokens
    ]
    score = next(
        Scorer(model, batch_size=1).score(
            [ScoreRequest(context=ids[:1], continuation=ids[1:], name="all")]
        )
    )[0][1]
    assert sum(values[1:]) == pytest.approx(score.log_likelihood, abs=1e-3)
    start = len(tokenizer(PROMPT))
    for token, value, likeliest in zip(tokens[1:], values[1:], top[1:], strict=True):
        assert likeliest[token] == value
        assert 2 <= len(likeliest) <= 3
    # The completion is greedy.
    for value, likeliest in zip(values[start:], top[start:], strict=True):
        assert value == max(likeliest.values())


def test_a_prompt_is_scored_without_a_completion(client):
    with_tokens = complete(client, echo=True, logprobs=0)
    alone = complete(client, echo=True, logprobs=0, max_tokens=0)
    (choice,) = alone.choices
    assert (choice.text, choice.finish_reason) == (PROMPT, "length")
    count = len(choice.logprobs.tokens)
    assert count == alone.usage.prompt_tokens
    whole = with_tokens.choices[0].logprobs.token_logprobs
    assert choice.logprobs.token_logprobs == whole[:count]
    assert choice.logprobs.top_logprobs is None
    _, found = streamed(client, echo=True, max_tokens=0)
    assert found == {0: (PROMPT, "length")}


def test_a_text_that_is_far_too_long_is_not_even_tokenized(client):
    with pytest.raises(openai.BadRequestError, match="200000 characters.* 512 tokens"):
        complete(client, "x" * 200_000)


def test_many_clients_at_once_get_their_own_answers(client, expected):
    def ask(i):
        return i, complete(client, PROMPTS[i % 3]).choices[0].text

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for i, text in pool.map(ask, range(24)):
            assert text == expected[i % 3].text
