import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from star_keras.sampling import BatchSampler, ContinuousSampler, get_sampler
from star_keras.sampling.model_sampler import _nucleus

both = pytest.mark.parametrize("cls", [BatchSampler, ContinuousSampler])


def test_top_k_and_top_p_sample_only_the_likeliest(make_model):
    model = make_model()
    logits = jnp.tile(jnp.log(jnp.array([0.05, 0.5, 0.3, 0.15])), (400, 1))
    key_data = jax.random.key_data(jax.random.split(jax.random.key(0), 400))

    def drawn(**kwargs):
        sampler = get_sampler(model, max_new_tokens=1, temperature=1, **kwargs)
        return set(sampler._next_token(logits, key_data, jnp.arange(400)).tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {1, 2}
    assert drawn(top_p=0.79) == {1, 2}
    assert drawn(top_p=0.81) == {1, 2, 3}
    assert drawn(top_k=3, top_p=0.4) == {1}


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 3}, {"top_p": 0.85}])
def test_tokens_are_drawn_with_their_probabilities(make_model, kwargs):
    logits = np.log(np.array([0.05, 0.5, 0.3, 0.15]))
    sampler = get_sampler(make_model(), max_new_tokens=1, temperature=2.0, **kwargs)
    key_data = np.stack([sampler._key_data((i,)) for i in range(4000)])
    drawn = sampler._next_token(
        jnp.tile(logits, (4000, 1)), key_data, np.zeros(4000, "int32")
    )
    expected = np.exp(logits / 2)
    if kwargs:
        # With this temperature both leave out the unlikeliest token alone.
        expected[0] = 0
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("kwargs", [{}, {"top_p": 0.9}])
def test_whole_vocabulary_is_not_sorted_where_top_k_bounds_it(make_model, kwargs):
    sampler = get_sampler(
        make_model(), max_new_tokens=1, temperature=1.0, top_k=5, **kwargs
    )
    program = jax.make_jaxpr(sampler._next_token)(
        np.zeros((2, 1000), "float32"), np.zeros((2, 2), "uint32"), np.zeros(2, "int32")
    )
    assert "top_k" in str(program)
    assert " sort[" not in str(program)


@both
def test_top_1_sampling_equals_greedy(make_model, cls, run, requests):
    model = make_model()
    prompts = requests(["Q: hi", "a", "x y z"])

    def texts(**kwargs):
        return run(cls(model, max_new_tokens=20, batch_size=2, **kwargs), prompts)

    assert texts(temperature=1, top_k=1) == texts()
    assert texts(temperature=1, top_p=1e-6) == texts()


@both
def test_length_ends_what_does_not_stop(make_model, cls, run, requests):
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(np.arange(258) == end, -1e9, 0.0))
    (completion,) = run(cls(model, max_new_tokens=5), requests(["abc"]))
    assert completion.finish_reason == "length"
    assert completion.num_tokens == 5


@both
def test_end_token_is_counted_and_not_shown(make_model, cls, run, requests):
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(np.arange(258) == end, 1e9, 0.0))
    (completion,) = run(cls(model, max_new_tokens=5), requests(["abc"]))
    assert completion.text == ""
    assert completion.num_tokens == 1
    assert completion.finish_reason == "stop"


class TestFinished:
    @pytest.fixture
    def finished(self, make_model):
        sampler = get_sampler(make_model(), max_new_tokens=10)

        def finished(text, *stop):
            ids = [int(i) for i in sampler.tokenizer(text)]
            completion = sampler._finished(ids, stop)
            return completion and (completion.text, completion.num_tokens)

        return finished

    def test_unfinished(self, finished):
        assert finished("abcdef", "x") is None
        assert finished("", "x") is None

    def test_stop_string_counts_up_to_the_token_that_completes_it(self, finished):
        assert finished("abcdef", "cd") == ("ab", 4)
        # One token, "qz", holds the end of the stop string and more.
        assert finished("abqzef", "bq") == ("a", 3)

    def test_first_completed_stop_string_counts(self, finished):
        assert finished("abcdef", "bcde", "cd") == ("ab", 4)
        assert finished("abcdef", "cd", "bcd") == ("a", 4)

    def test_stop_string_in_the_last_token(self, finished):
        assert finished("0123456789", "89") == ("01234567", 10)
        assert finished("0123456789ab", "9a") == ("0123456789", 10)

    def test_letters_of_several_tokens(self, finished):
        assert finished("a\u00e9\u20acb", "\u20ac") == ("a\u00e9", 6)


@both
def test_requests_of_other_prefixes_are_an_error(make_model, cls, requests):
    sampler = cls(make_model(), max_new_tokens=4)
    mixed = requests(["a"], "x ") + requests(["a"], "y ")
    with pytest.raises(ValueError, match="prefix of 'problem 0'.*prefix='y '.*'x '"):
        next(sampler.sample(mixed))


@both
def test_no_requests_give_nothing(make_model, cls):
    assert list(cls(make_model(), max_new_tokens=4).sample([])) == []


@pytest.mark.parametrize(
    "argument",
    [
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_k": 5},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"seed": -1},
    ],
)
def test_bad_arguments_are_named(make_model, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`.*Received: .*{name}="):
        get_sampler(make_model(), **{"max_new_tokens": 8, **argument})


@both
def test_token_ids_are_prompts_like_their_texts(make_model, cls, run, requests):
    model = make_model()
    texts = requests(["1 + 2 =", "Why?", "a b c d e"])
    ids = [
        dataclasses.replace(
            request, prompt=tuple(model.preprocessor.tokenizer(request.prompt).tolist())
        )
        for request in texts
    ]
    sampler = cls(model, max_new_tokens=6, batch_size=2)
    assert run(sampler, ids) == run(sampler, texts)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.999])
def test_nucleus_equals_that_of_sorted_weights(top_p):
    logits = 3 * np.random.default_rng(0).standard_normal((8, 2000))
    logits[1, :1000] = logits[1].max()  # ties
    logits[2, 1:] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True)).astype("float32")
    expected = np.zeros_like(weights)
    for row, values in zip(expected, weights.astype("float64"), strict=True):
        above = [values[values > value].sum() for value in values]
        kept = np.asarray(above) < top_p * values.sum()
        row[kept] = values[kept]
    np.testing.assert_array_equal(_nucleus(weights, top_p), expected)
