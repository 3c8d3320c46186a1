import dataclasses

import numpy as np
import pytest

from star_keras import testing
from star_keras.sampling import (
    BatchSampler,
    ContinuousSampler,
    SampleRequest,
    get_sampler,
)

both = pytest.mark.parametrize("cls", [BatchSampler, ContinuousSampler])


@pytest.fixture(scope="module")
def model(byte_tokenizer):
    return testing.tiny_gpt_j(tokenizer=byte_tokenizer, num_layers=1)


@pytest.fixture
def set_end_bias(model):
    """Sets the bias of the end token's logit until the end of the test."""
    bias = model.lm_head.bias
    before = np.array(bias)
    end = model.preprocessor.tokenizer.end_token_id
    yield lambda value: bias.assign(np.where(np.arange(258) == end, value, 0.0))
    bias.assign(before)


@both
def test_top_1_sampling_equals_greedy(model, cls, run, requests):
    prompts = requests(["Q: hi", "a", "x y z"])

    def texts(**kwargs):
        return run(cls(model, max_new_tokens=20, batch_size=2, **kwargs), prompts)

    greedy = texts()
    assert texts(temperature=1, top_k=1) == greedy
    assert texts(temperature=1, top_p=1e-6) == greedy


@both
def test_length_and_end_token_end_a_completion(model, set_end_bias, cls, run, requests):
    sampler = cls(model, max_new_tokens=5, batch_size=2)
    set_end_bias(-1e9)
    (completion,) = run(sampler, requests(["abc"]))
    assert completion.finish_reason == "length"
    assert completion.num_tokens == 5
    # The end token is counted and not shown.
    set_end_bias(1e9)
    (completion,) = run(sampler, requests(["abc"]))
    assert completion.finish_reason == "stop"
    assert completion.num_tokens == 1
    assert completion.text == ""


@both
def test_every_end_token_ends_a_completion_and_no_unknown_id_is_sampled(
    byte_tokenizer, cls, run, requests, monkeypatch
):
    model = testing.tiny_gpt_j(
        tokenizer=byte_tokenizer, num_layers=1, vocabulary_size=270
    )
    # The two likeliest tokens: one behind the tokenizer's, and a second end token.
    model.lm_head.bias.assign(np.eye(270)[263] * 1e9 + np.eye(270)[9] * 1e6)
    prompts = requests(["abc", "d"])
    sampled = run(cls(model, max_new_tokens=3, batch_size=2), prompts)
    nine = byte_tokenizer.id_to_token(9)
    assert [c.text for c in sampled] == [nine * 3] * 2
    monkeypatch.setattr(byte_tokenizer, "end_token_ids", (0, 9), raising=False)
    for completion in run(cls(model, max_new_tokens=3, batch_size=2), prompts):
        assert (completion.text, completion.num_tokens) == ("", 1)
        assert completion.finish_reason == "stop"


class TestReadCompletion:
    @pytest.fixture
    def read(self, model):
        sampler = get_sampler(model, max_new_tokens=10)

        def read(text, *stop):
            ids = [int(i) for i in sampler.tokenizer(text)]
            completion = sampler.reader.read(ids, stop)
            return completion and (completion.text, completion.num_tokens)

        return read

    def test_unfinished(self, read):
        assert read("abcdef", "x") is None
        assert read("", "x") is None

    def test_stop_string_counts_up_to_the_token_that_completes_it(self, read):
        assert read("abcdef", "cd") == ("ab", 4)
        # One token, "qz", holds the end of the stop string and more.
        assert read("abqzef", "bq") == ("a", 3)

    def test_first_completed_stop_string_counts(self, read):
        assert read("abcdef", "bcde", "cd") == ("ab", 4)
        assert read("abcdef", "cd", "bcd") == ("a", 4)

    def test_stop_string_in_the_last_token(self, read):
        assert read("0123456789", "89") == ("01234567", 10)
        assert read("0123456789ab", "9a") == ("0123456789", 10)

    def test_letters_of_several_tokens(self, read):
        assert read("a\u00e9\u20acb", "\u20ac") == ("a\u00e9", 6)


@both
def test_requests_of_other_prefixes_are_an_error(model, cls, requests):
    sampler = cls(model, max_new_tokens=4)
    mixed = requests(["a"], "x ") + requests(["a"], "y ")
    with pytest.raises(ValueError, match="prefix of 'problem 0'.*prefix='y '.*'x '"):
        next(sampler.sample(mixed))


@both
def test_requests_are_a_sequence(model, cls, requests):
    sampler = cls(model, max_new_tokens=4)
    for wrong in (iter(requests(["a"])), requests(["a"])[0]):
        with pytest.raises(ValueError, match="`requests`. Expected a sequence of"):
            next(sampler.sample(wrong))


@pytest.mark.parametrize("seed", [3, None, (-1,), (0.5,), "1"])
def test_the_seed_of_a_request_is_checked(seed):
    with pytest.raises(ValueError, match="`seed`. Expected a tuple.*request 'one'"):
        SampleRequest(prompt="a", name="one", seed=seed)


@both
def test_no_requests_give_nothing(model, cls):
    assert list(cls(model, max_new_tokens=4).sample([])) == []


@pytest.mark.parametrize(
    "argument",
    [
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_k": 5},
        {"top_p": 0.0},
        {"top_p": 0.5},
        {"top_p": 1.5},
        {"min_p": 0.0},
        {"min_p": 0.1},
        {"min_p": 1.5},
        {"seed": -1},
    ],
)
def test_bad_arguments_are_named(model, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`.*Received: .*{name}="):
        get_sampler(model, **{"max_new_tokens": 8, **argument})


@both
def test_token_ids_are_prompts_like_their_texts(model, cls, run, requests):
    texts = requests(["1 + 2 =", "Why?", "a b c d e"])
    ids = [
        dataclasses.replace(
            request, prompt=tuple(model.preprocessor.tokenizer(request.prompt).tolist())
        )
        for request in texts
    ]
    sampler = cls(model, max_new_tokens=6, batch_size=2)
    assert run(sampler, ids) == run(sampler, texts)
