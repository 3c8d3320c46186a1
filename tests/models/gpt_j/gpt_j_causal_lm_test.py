import functools

import jax
import jax.numpy as jnp
import keras
import keras_hub
import numpy as np
import pytest

from star_keras import testing
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    GPTJTokenizer,
)
from star_keras.models.forward import build_cache

VOCABULARY_SIZE = 257


@pytest.fixture
def make_model(make_model):
    return functools.partial(make_model, num_layers=1)


@pytest.fixture
def model(make_model):
    return make_model()


def random_tokens(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, VOCABULARY_SIZE, shape, "int32")


def logits_of(model, token_ids):
    """Logits of rows without padding (or what a backbone gives for them)."""
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    if not isinstance(model, GPTJCausalLM):
        return model.predict_on_batch(inputs)
    # The preprocessor would tokenize them.
    preprocessor, model.preprocessor = model.preprocessor, None
    logits = model.predict_on_batch(inputs)
    model.preprocessor = preprocessor
    return logits


def copy_weights(source, target):
    target.set_weights([np.array(weight) for weight in source.get_weights()])


def assert_equal_logits(model, other):
    tokens = random_tokens(2, 12)
    np.testing.assert_allclose(
        logits_of(other, tokens), logits_of(model, tokens), atol=1e-6, rtol=0
    )


def assert_equal_tokens(tokenizer, other):
    np.testing.assert_array_equal(tokenizer("a b"), other("a b"))


# === A random model ===


@pytest.mark.parametrize("hidden_dim", (32, 128))
def test_logits_of_a_random_model_are_about_one_at_any_width(make_model, hidden_dim):
    model = make_model(
        hidden_dim=hidden_dim,
        intermediate_dim=2 * hidden_dim,
        num_layers=1 + hidden_dim // 32,
    )
    assert 0.7 < logits_of(model, random_tokens(4, 12)).std() < 1.4


def test_head_is_not_tied_to_the_embedding_and_has_a_bias(model):
    vocabulary_size = model.backbone.vocabulary_size
    shapes = {weight.path: weight.shape for weight in model.lm_head.weights}
    assert shapes == {
        "lm_head/kernel": (32, vocabulary_size),
        "lm_head/bias": (vocabulary_size,),
    }


# === Training ===


def fit(model, token_ids, labels):
    """One step past the preprocessor."""
    model.preprocessor = None
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    model.fit(inputs, labels, batch_size=len(token_ids), shuffle=False, verbose=0)


def test_optional_inputs_may_be_left_out_of_predict_and_call(model):
    inputs = {
        "token_ids": random_tokens(2, 12),
        "padding_mask": np.ones((2, 12), "int32"),
    }
    expected = logits_of(model, inputs["token_ids"])
    assert expected.shape == (2, 12, model.backbone.vocabulary_size)
    model.preprocessor = None
    np.testing.assert_allclose(model.predict(inputs, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(model)(inputs), expected, atol=1e-5)
    given = {"positions": np.tile(np.arange(12), (2, 1))}
    np.testing.assert_allclose(jax.jit(model)({**inputs, **given}), expected, atol=1e-5)


def test_fit_tells_the_layers_that_they_are_trained(make_model):
    model = make_model(dropout=0.3)
    model.compile(gradient_checkpointing=True)
    states = [np.array(v.value) for v in model.non_trainable_variables]
    assert len(states) == 3
    fit(model, random_tokens(2, 12), random_tokens(2, 12))
    for before, after in zip(states, model.non_trainable_variables, strict=True):
        assert (before != after.value).any()


def test_lora_on_the_backbone_leaves_its_kernels_as_they_were(model):
    model.backbone.enable_lora(2)
    model.lm_head.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(0.1), weighted_metrics=[])
    before = {v.path: np.array(v.value) for v in model.variables}
    for _ in range(2):  # the second factor is zero before the first step
        fit(model, random_tokens(2, 12), random_tokens(2, 12))
    changed = {
        v.path for v in model.variables if (before[v.path] != np.array(v.value)).any()
    }
    assert changed == {v.path for v in model.trainable_variables}
    assert len(changed) == 4
    assert all("lora_kernel" in path for path in changed)


def test_fit_reads_text(model):
    history = model.fit(["one two", "three"], batch_size=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"][0])


# === Generation ===


def greedy_without_cache(model, prompts, length):
    """The prompts continued to `length` tokens, by whole forward passes."""
    tokens = np.zeros((len(prompts), length), "int32")
    lengths = np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    while (lengths < length).any():
        chosen = logits_of(model, tokens).argmax(-1)
        for i in np.flatnonzero(lengths < length):
            tokens[i, lengths[i]] = chosen[i, lengths[i] - 1]
            lengths[i] += 1
    return tokens


def generate(model, prompts, length, stop_token_ids=None, padding=0):
    mask = np.arange(length) < np.array([len(prompt) for prompt in prompts])[:, None]
    tokens = np.full((len(prompts), length), padding, "int32")
    tokens[mask] = np.concatenate(prompts)
    return model.generate(
        {"token_ids": tokens, "padding_mask": mask.astype("int32")},
        stop_token_ids=stop_token_ids,
    )


PROMPTS = [random_tokens(n, seed=n) for n in (3, 7, 1)]


@pytest.fixture(scope="module")
def token_model():
    """Token ids in, token ids out."""
    model = testing.tiny_gpt_j()
    model.preprocessor = None
    model.compile(sampler="greedy")
    return model


@pytest.fixture(scope="module")
def greedy(token_model):
    """The prompts continued greedily."""
    return generate(token_model, PROMPTS, 16)["token_ids"]


@pytest.fixture
def sampling_model(token_model):
    """The same model, to be compiled with other samplers."""
    yield token_model
    token_model.compile(sampler="greedy")


def test_greedy_generation_equals_the_uncached_loop_token_for_token(token_model):
    """The prompts have different lengths."""
    expected = greedy_without_cache(token_model, PROMPTS, 16)
    outputs = generate(token_model, PROMPTS, 16)
    np.testing.assert_array_equal(outputs["token_ids"], expected)
    assert outputs["padding_mask"].all()


def test_a_prompt_is_continued_the_same_alone_and_among_others(token_model, greedy):
    for prompt, row in zip(PROMPTS[:2], greedy, strict=False):
        alone = generate(token_model, [prompt], 16)["token_ids"]
        np.testing.assert_array_equal(alone[0], row)


@pytest.mark.parametrize(
    "sampler",
    (
        keras_hub.samplers.TopKSampler(k=1, seed=0),
        keras_hub.samplers.TopPSampler(p=1e-6, seed=0),
    ),
    ids=("top_1", "top_p_of_nothing"),
)
def test_sampling_of_one_candidate_equals_greedy(sampling_model, greedy, sampler):
    sampling_model.compile(sampler=sampler)
    np.testing.assert_array_equal(
        generate(sampling_model, PROMPTS, 16)["token_ids"], greedy
    )


@pytest.mark.parametrize("name", ("TopKSampler", "TopPSampler"))
def test_samplers_keep_the_prompts_and_obey_their_seed(sampling_model, name):
    limit = {"k": 50} if name == "TopKSampler" else {"p": 0.9}

    def sample(times):
        sampler = getattr(keras_hub.samplers, name)(seed=3, **limit)
        sampling_model.compile(sampler=sampler)
        return [
            generate(sampling_model, PROMPTS, 16)["token_ids"] for _ in range(times)
        ]

    first, second = sample(2)
    for prompt, row in zip(PROMPTS, first, strict=True):
        np.testing.assert_array_equal(row[: len(prompt)], prompt)
    assert (first != second).any()
    np.testing.assert_array_equal(sample(1)[0], first)


def test_a_row_ends_at_its_first_stop_token_after_the_prompt(token_model, greedy):
    # One stop token inside of a prompt, one that the same row generates.
    stops = (int(PROMPTS[1][2]), int(greedy[1, 9]))
    outputs = generate(token_model, PROMPTS, 16, stop_token_ids=stops)
    ended = 0
    for prompt, row, tokens, mask in zip(
        PROMPTS, greedy, outputs["token_ids"], outputs["padding_mask"], strict=True
    ):
        found = np.flatnonzero(np.isin(row[len(prompt) :], stops))
        end = len(prompt) + found[0] + 1 if len(found) else 16
        ended += bool(len(found))
        np.testing.assert_array_equal(mask, np.arange(16) < end)
        np.testing.assert_array_equal(tokens[:end], row[:end])
        np.testing.assert_array_equal(tokens[end:], 0)  # padding as before
    assert ended


def test_padding_that_looks_like_a_stop_token_stops_nothing(token_model, greedy):
    """GPT-J pads with its end token."""
    absent = next(i for i in range(VOCABULARY_SIZE) if i not in greedy)
    outputs = generate(token_model, PROMPTS, 16, (absent,), padding=absent)
    np.testing.assert_array_equal(outputs["token_ids"], greedy)
    assert outputs["padding_mask"].all()


def test_generate_takes_and_gives_text(model):
    model.compile(sampler="greedy")
    tokenizer = model.preprocessor.tokenizer
    prompts = ["Input:\n1 2", "A"]
    ids = greedy_without_cache(model, [tokenizer(prompt) for prompt in prompts], 20)
    end_token_id = tokenizer.end_token_id

    texts = model.generate(prompts, max_length=20, stop_token_ids=None)
    assert texts == [
        tokenizer.detokenize(row[row != end_token_id].tolist()) for row in ids
    ]
    # One string instead of a list; and it ends at the end token.
    row = ids[0].tolist()
    end = row.index(end_token_id) if end_token_id in row else len(row)
    text = model.generate(prompts[0], max_length=20)
    assert text == tokenizer.detokenize(row[:end])
    assert text.startswith(prompts[0]) and text != prompts[0]

    stripped = model.generate(
        prompts, max_length=20, stop_token_ids=None, strip_prompt=True
    )
    assert [a + b for a, b in zip(prompts, stripped, strict=True)] == texts


# === Saving ===


def test_config_round_trip(model):
    copy = GPTJCausalLM.from_config(model.get_config())
    assert type(copy.backbone) is GPTJBackbone
    assert type(copy.preprocessor) is GPTJCausalLMPreprocessor
    assert copy.backbone.get_config() == model.backbone.get_config()
    copy_weights(model, copy)
    assert_equal_logits(model, copy)


def test_saved_model_round_trip(model, tmp_path):
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert type(copy) is GPTJCausalLM
    assert_equal_tokens(copy.preprocessor.tokenizer, model.preprocessor.tokenizer)
    assert_equal_logits(model, copy)


def test_saved_weights_round_trip(make_model, tmp_path):
    model, copy = make_model(seed=0), make_model(seed=1)
    model.save_weights(tmp_path / "model.weights.h5")
    copy.load_weights(tmp_path / "model.weights.h5")
    assert_equal_logits(model, copy)


@pytest.mark.parametrize("cls", (GPTJCausalLM, keras_hub.models.CausalLM))
def test_preset_round_trip(model, tmp_path, cls):
    model.save_to_preset(str(tmp_path))
    copy = cls.from_preset(str(tmp_path))
    assert type(copy) is GPTJCausalLM
    assert copy.backbone.get_config() == model.backbone.get_config()
    assert copy.preprocessor.sequence_length == model.preprocessor.sequence_length
    assert_equal_tokens(copy.preprocessor.tokenizer, model.preprocessor.tokenizer)
    assert_equal_logits(model, copy)


def test_parts_of_a_preset_load_by_themselves(model, tmp_path):
    model.save_to_preset(str(tmp_path))
    for cls in (GPTJBackbone, keras_hub.models.Backbone):
        backbone = cls.from_preset(str(tmp_path))
        assert type(backbone) is GPTJBackbone
        assert_equal_logits(model.backbone, backbone)
    for cls in (GPTJTokenizer, keras_hub.models.Tokenizer):
        tokenizer = cls.from_preset(str(tmp_path))
        assert type(tokenizer) is GPTJTokenizer
        assert_equal_tokens(tokenizer, model.preprocessor.tokenizer)
    preprocessor = GPTJCausalLMPreprocessor.from_preset(str(tmp_path))
    assert preprocessor.get_config() == model.preprocessor.get_config()


def test_preset_without_weights_is_another_random_model(model, tmp_path):
    model.save_to_preset(str(tmp_path))
    copy = GPTJCausalLM.from_preset(str(tmp_path), load_weights=False)
    tokens = random_tokens(2, 12)
    assert np.abs(logits_of(copy, tokens) - logits_of(model, tokens)).max() > 0.1


# === dtypes ===


@pytest.mark.parametrize(
    ("dtype", "variable_dtype"),
    (("bfloat16", "bfloat16"), ("mixed_bfloat16", "float32")),
)
def test_preset_loads_in_other_dtypes(model, tmp_path, dtype, variable_dtype):
    model.save_to_preset(str(tmp_path))
    low = GPTJCausalLM.from_preset(str(tmp_path), dtype=dtype)
    assert {v.dtype for v in low.trainable_variables} == {variable_dtype}
    assert {x.dtype for x in jax.tree.leaves(build_cache(low, 1, 4))} == {
        jnp.dtype("bfloat16")
    }
    tokens = random_tokens(2, 12)
    logits = logits_of(low, tokens)
    assert logits.dtype == "bfloat16"
    difference = np.asarray(logits, "float32") - logits_of(model, tokens)
    assert difference.std() < 0.02  # logits have a deviation of 1
    assert np.abs(difference).max() < 0.15


@pytest.mark.parametrize(
    ("dtype", "moment_dtype"), (("bfloat16", "bfloat16"), ("mixed_bfloat16", "float32"))
)
def test_mixed_precision_keeps_the_moments_in_float32(make_model, dtype, moment_dtype):
    model = make_model(dtype=dtype)
    model.optimizer.build(model.trainable_variables)
    moments = [v for v in model.optimizer.variables if len(v.shape) > 0]
    assert {v.dtype for v in moments} == {moment_dtype}


def test_generation_works_in_mixed_precision(make_model):
    model = make_model(dtype="mixed_bfloat16")
    model.preprocessor = None
    model.compile(sampler="greedy")
    tokens = generate(model, PROMPTS, 16)["token_ids"]
    for prompt, row in zip(PROMPTS, tokens, strict=True):
        np.testing.assert_array_equal(row[: len(prompt)], prompt)
