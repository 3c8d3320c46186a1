import warnings

import keras
import keras_hub
import numpy as np
import pytest
from keras_hub import models as hub

from star_keras.models import PackedCausalLM, packed_causal_lm
from star_keras.testing import tiny_causal_lm


@pytest.fixture(scope="module")
def llama():
    return tiny_causal_lm("llama", packed=False)


def test_packed_model_is_still_a_llama_and_shares_its_weights(llama):
    packed = packed_causal_lm(llama)
    assert isinstance(packed, PackedCausalLM)
    assert isinstance(packed, hub.LlamaCausalLM)
    assert packed.backbone is llama.backbone
    assert packed.preprocessor is llama.preprocessor
    assert packed_causal_lm(packed) is packed


def test_saved_under_the_name_of_the_stock_class(llama):
    packed = type(packed_causal_lm(llama))
    name = keras.saving.get_registered_name(packed)
    assert name == keras.saving.get_registered_name(hub.LlamaCausalLM)
    assert keras.saving.get_registered_object(name) is hub.LlamaCausalLM


def test_one_sequence_a_row_is_what_the_stock_model_computes(llama):
    x = {
        "token_ids": np.arange(1, 13).reshape(2, 6),
        "padding_mask": np.array([[1] * 6, [1] * 4 + [0] * 2]),
    }
    stock, packed = llama(x), packed_causal_lm(llama)
    np.testing.assert_array_equal(packed(x), stock)
    counted = {**x, "positions": np.tile(np.arange(6), (2, 1))}
    is_real = x["padding_mask"] == 1
    np.testing.assert_allclose(
        np.asarray(packed(counted))[is_real], np.asarray(stock)[is_real], atol=1e-4
    )


@pytest.mark.parametrize("family", ["llama", "gpt_j", "qwen3", "gemma3"])
def test_generates_although_padding_is_the_end_token(family):
    model = tiny_causal_lm(family)
    model.compile(sampler="greedy")
    rows = {
        "token_ids": np.pad([[5, 6, 7, 8], [9, 10, 0, 0]], ((0, 0), (0, 6))),
        "padding_mask": np.pad([[1, 1, 1, 1], [1, 1, 0, 0]], ((0, 0), (0, 6))),
    }
    expected = np.asarray(model.generate_step(rows, stop_token_ids=None)["token_ids"])
    assert np.all(expected != 0)
    # Both ids are stops that no row reaches.
    found = model.generate_step(rows, stop_token_ids=(0, 257))
    np.testing.assert_array_equal(found["token_ids"], expected)
    assert np.all(found["padding_mask"])


def test_a_prompt_keeps_tokens_that_are_no_part_of_its_mask():
    """As Gemma 3's start token, if it is the padding."""
    model = tiny_causal_lm("llama")
    model.compile(sampler="greedy")
    rows = {
        "token_ids": np.array([[0, 5, 0, 7, 0, 0, 0]]),
        "padding_mask": np.array([[0, 1, 0, 1, 0, 0, 0]]),
    }
    found = model.generate_step(rows, stop_token_ids=(0, 257))["token_ids"]
    np.testing.assert_array_equal(np.asarray(found)[0, :4], [0, 5, 0, 7])


def test_evaluate_takes_packed_rows(llama):
    packed = packed_causal_lm(llama)
    packed.compile()
    packed.preprocessor = None
    x = {
        "token_ids": np.arange(1, 9)[None],
        "padding_mask": np.ones((1, 8), "int32"),
        "segment_ids": np.array([[1] * 5 + [2] * 3]),
        "positions": np.array([[0, 1, 2, 3, 4, 0, 1, 2]]),
    }
    y = np.arange(2, 10)[None]
    logits = np.asarray(packed(x), "float64")[0]
    chosen = logits[np.arange(8), y[0]] - np.log(np.exp(logits).sum(-1))
    found = packed.evaluate(x, y, verbose=0)
    assert found == pytest.approx(-chosen.mean(), rel=1e-4)


def test_other_models_are_errors_with_a_remedy(byte_tokenizer):
    bloom = hub.BloomCausalLM(hub.BloomBackbone(258, 1, 2, 16, 32), None)
    message = r"argument `model`.*'Llama'.*'BloomCausalLM'.*`BatchSampler`"
    with pytest.raises(ValueError, match=message):
        packed_causal_lm(bloom)
    with pytest.raises(ValueError, match="`keras_hub.models.CausalLM`"):
        packed_causal_lm(keras.Sequential())
    images = keras_hub.models.Phi3Backbone(
        vocabulary_size=64,
        num_layers=1,
        hidden_dim=16,
        intermediate_dim=32,
        num_query_heads=2,
        num_key_value_heads=1,
        rope_scaling_type="su",
        rope_scaling_short_factor=[1.0] * 4,
        rope_scaling_long_factor=[2.0] * 4,
    )
    with pytest.raises(ValueError, match="argument `model`"):
        packed_causal_lm(hub.Phi3CausalLM(images, None))


@pytest.mark.parametrize(
    ("family", "said"), [("gpt2", True), ("gpt_j", False), ("smollm3", False)]
)
def test_a_dropout_that_is_left_out_within_attention_is_said(family, said):
    sizes = {} if family == "smollm3" else {"dropout": 0.1}
    model = tiny_causal_lm(family, **sizes)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.hidden_states({"token_ids": np.ones((1, 2), "int32")})
    messages = [str(w.message) for w in found]
    assert any("dropout=0.1" in m and "within attention" in m for m in messages) == said
