import functools
import math
import re

import jax
import keras
import numpy as np
import pytest

from star_keras.models import GPTJBackbone, GPTJCausalLM

VOCABULARY_SIZE = 257


def make_backbone(seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    sizes = {
        "vocabulary_size": VOCABULARY_SIZE,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "rotary_dim": 8,
    }
    return GPTJBackbone(**{**sizes, **kwargs})


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def random_tokens(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, VOCABULARY_SIZE, shape, "int32")


def inputs_of(*shape):
    """Required inputs, all tokens real."""
    return {"token_ids": random_tokens(*shape), "padding_mask": np.ones(shape, "int32")}


def run(model, token_ids, padding_mask=None, **inputs):
    """A compiled forward pass, without the optional inputs unless given."""
    if padding_mask is None:
        padding_mask = np.ones_like(token_ids)
    return model.predict_on_batch(
        {"token_ids": token_ids, "padding_mask": padding_mask, **inputs}
    )


# === Size ===


def shapes_without_memory(make_model):
    """Parameter count, and shapes by path, of a model that is never made."""
    found = {}

    def trace():
        model = make_model()
        found["count"] = model.count_params()
        found["shapes"] = {v.path: tuple(v.shape) for v in model.variables}
        return [variable.value for variable in model.variables]

    jax.eval_shape(trace)
    return found["count"], found["shapes"]


def make_six_billion(**kwargs):
    return GPTJCausalLM(GPTJBackbone.gpt_j_6b(**kwargs), compile=False)


def test_gpt_j_6b_has_6_050_882_784_parameters():
    count, _ = shapes_without_memory(make_six_billion)
    assert count == 6_050_882_784


def test_parameters_beyond_ours_in_the_model_card_are_copies_in_its_shards():
    """The released checkpoint has eight shards, and its published size of
    6,053,381,344 counts in each of them the LayerNorms, the MLPs' output
    biases, and a bias of the embedding that the network does not use.
    """
    count, shapes = shapes_without_memory(make_six_billion)
    in_each_shard = sum(
        math.prod(shape)
        for path, shape in shapes.items()
        if re.search(r"layer_norm/(gamma|beta)|feedforward_output_dense/bias", path)
    )
    assert in_each_shard == 28 * (2 * 4096 + 4096) + 2 * 4096
    (_, embedding_bias) = shapes["token_embedding/embeddings"]
    assert count + 7 * in_each_shard + 8 * embedding_bias == 6_053_381_344


def test_gpt_j_6b_takes_other_sizes():
    _, shapes = shapes_without_memory(
        lambda: make_six_billion(num_layers=1, vocabulary_size=300)
    )
    assert shapes["token_embedding/embeddings"] == (300, 4096)
    assert not any("transformer_layer_1" in path for path in shapes)


# === What a token sees ===


def test_a_token_does_not_see_later_tokens(backbone):
    tokens = random_tokens(2, 16)
    changed = tokens.copy()
    changed[:, 6:] = random_tokens(2, 10, seed=1)
    before, after = run(backbone, tokens), run(backbone, changed)
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-6)
    assert (np.abs(after[:, 6:] - before[:, 6:]).max(-1) > 1e-2).all()


def test_a_token_sees_all_earlier_tokens(backbone):
    tokens = random_tokens(2, 16)
    changed = tokens.copy()
    changed[:, 0] = (changed[:, 0] + 1) % VOCABULARY_SIZE
    difference = np.abs(run(backbone, changed) - run(backbone, tokens)).max(-1)
    assert (difference > 1e-4).all()


def test_padding_on_the_right_does_not_change_real_tokens(backbone):
    tokens = random_tokens(2, 16)
    mask = np.arange(16) < np.array([[5], [9]])
    alone = [run(backbone, tokens[[0], :5]), run(backbone, tokens[[1], :9])]
    for filler in (0, 3):
        padded = run(backbone, np.where(mask, tokens, filler), mask.astype("int32"))
        np.testing.assert_allclose(padded[0, :5], alone[0][0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(padded[1, :9], alone[1][0], atol=1e-5, rtol=0)


def test_masked_tokens_are_not_seen(backbone):
    tokens = random_tokens(2, 16)
    changed = tokens.copy()
    changed[:, 2] = (changed[:, 2] + 1) % VOCABULARY_SIZE
    mask = np.ones((2, 16), "int32")
    mask[:, 2] = 0
    before, after = run(backbone, tokens, mask), run(backbone, changed, mask)
    others = np.arange(16) != 2
    np.testing.assert_array_equal(after[:, others], before[:, others])


# === Training ===


def test_dropout_acts_in_training_only(backbone):
    dropping = make_backbone(dropout=0.3)
    for to, weight in zip(
        dropping.trainable_variables, backbone.trainable_variables, strict=True
    ):
        to.assign(np.array(weight.value))
    tokens = random_tokens(2, 16)
    np.testing.assert_array_equal(run(dropping, tokens), run(backbone, tokens))
    train = functools.partial(dropping.stateless_call, training=True)
    trained, states = jax.jit(train)(
        weights_of(dropping),
        [variable.value for variable in dropping.non_trainable_variables],
        inputs_of(2, 16),
    )
    assert np.abs(trained - run(dropping, tokens)).max() > 1e-2
    assert len(states) == 5  # one random state a dropout


def weights_of(backbone):
    return [variable.value for variable in backbone.trainable_variables]


def test_fit_drops_out():
    """`fit()` tells the layers that they are trained."""
    backbone = make_backbone(dropout=0.3)
    backbone.compile(optimizer="sgd", loss="mse")
    states = [np.array(v.value) for v in backbone.non_trainable_variables]
    backbone.fit(inputs_of(2, 16), np.zeros((2, 16, 32)), batch_size=2, verbose=0)
    for before, after in zip(states, backbone.non_trainable_variables, strict=True):
        assert (before != after.value).any()


# === LoRA ===


def test_lora_trains_its_own_weights_only_and_changes_nothing_at_first():
    backbone = make_backbone()
    tokens = random_tokens(2, 16)
    before = run(backbone, tokens)
    kernels = [np.array(v.value) for v in backbone.trainable_variables]
    backbone.enable_lora(2)
    trainable = backbone.trainable_variables
    assert [v.path.split("/", 1)[1] for v in trainable if "layer_0" in v.path] == [
        "self_attention/query/lora_kernel_a",
        "self_attention/query/lora_kernel_b",
        "self_attention/value/lora_kernel_a",
        "self_attention/value/lora_kernel_b",
    ]
    assert len(trainable) == 4 * backbone.num_layers

    backbone.predict_function = None  # the weights are others now
    np.testing.assert_array_equal(run(backbone, tokens), before)

    backbone.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    backbone.fit(inputs_of(2, 16), np.zeros((2, 16, 32)), batch_size=2, verbose=0)
    frozen = [v for v in backbone.variables if "lora" not in v.path]
    for kernel, variable in zip(kernels, frozen, strict=True):
        np.testing.assert_array_equal(kernel, variable.value)
    assert np.abs(run(backbone, tokens) - before).max() > 1e-4


# === Config, dtype, errors ===


def test_config_round_trip():
    backbone = make_backbone(
        max_sequence_length=99,
        rotary_max_wavelength=500,
        dropout=0.1,
        layer_norm_epsilon=1e-3,
        dtype="mixed_bfloat16",
        name="backbone",
    )
    copy = keras.layers.deserialize(keras.layers.serialize(backbone))
    assert type(copy) is GPTJBackbone
    assert copy.get_config() == backbone.get_config()
    layer = copy.transformer_layers[1]
    assert layer.dropout == 0.1
    assert layer.layer_norm.epsilon == 1e-3
    assert layer.self_attention.rotary_max_wavelength == 500
    assert layer.self_attention.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "variable_dtype"),
    (("bfloat16", "bfloat16"), ("mixed_bfloat16", "float32")),
)
def test_bfloat16_is_close_to_float32(backbone, dtype, variable_dtype):
    low = make_backbone(dtype=dtype)
    low.set_weights([np.array(weight) for weight in backbone.get_weights()])
    assert {v.dtype for v in low.trainable_variables} == {variable_dtype}
    tokens = random_tokens(2, 16)
    outputs = run(low, tokens)
    assert outputs.dtype == "bfloat16"
    difference = np.asarray(outputs, "float32") - run(backbone, tokens)
    assert difference.std() < 0.02  # hidden states have a deviation of 1
    assert np.abs(difference).max() < 0.15


def test_num_heads_must_divide_hidden_dim():
    with pytest.raises(ValueError, match="`num_heads`.*hidden_dim=32.*num_heads=3"):
        make_backbone(num_heads=3)


@pytest.mark.parametrize("rotary_dim", (5, 18))
def test_rotary_dim_must_be_even_and_fit_in_a_head(rotary_dim):
    with pytest.raises(ValueError, match="`rotary_dim`.*head_dim=16"):
        make_backbone(rotary_dim=rotary_dim)
