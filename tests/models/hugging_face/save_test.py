import json

import keras_hub
import numpy as np
import pytest

from star_keras.models import load_causal_lm, save_hugging_face
from tests.conftest import run_with_torch
from tests.models.hugging_face.cases import (
    CASES,
    FIXTURES,
    copied,
    difference,
    expected_ids,
    loaded,
)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_has_equal_weights_configuration_and_tokens(name, tmp_path):
    model = loaded(name)
    save_hugging_face(model, tmp_path, max_file_bytes=30_000)
    again = load_causal_lm(tmp_path)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)
    configs = [m.backbone.get_config() for m in (model, again)]
    assert configs[0] | {"name": ""} == configs[1] | {"name": ""}
    tokenizers = [m.preprocessor.tokenizer for m in (model, again)]
    assert tokenizers[1].get_config() | {"name": ""} == (
        tokenizers[0].get_config() | {"name": ""}
    )
    texts = expected_ids(name)["texts"]
    assert tokenizers[1](texts) == tokenizers[0](texts)
    assert again.preprocessor.add_start_token == model.preprocessor.add_start_token


@pytest.fixture(scope="module")
def found_by_transformers(tmp_path_factory):
    """What transformers makes of the models, saved by us."""
    directory = tmp_path_factory.mktemp("saved")
    for name in CASES:
        save_hugging_face(loaded(name), directory / name)
    return json.loads(run_with_torch("transformers_logits", directory, FIXTURES))


@pytest.mark.parametrize("name", CASES)
def test_transformers_loads_what_was_written(name, found_by_transformers):
    assert found_by_transformers[name]["difference"] <= 5e-5
    assert found_by_transformers[name]["ids"] == expected_ids(name)["ids"]


def test_bfloat16_round_trip_is_exact(tmp_path):
    narrow = load_causal_lm(FIXTURES / "llama_bin", dtype="bfloat16")
    save_hugging_face(narrow, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == (
        "bfloat16"
    )
    assert difference(load_causal_lm(tmp_path), "llama_bin") < 5e-5


def test_adapters_are_merged_into_what_is_written(tmp_path):
    model = load_causal_lm(FIXTURES / "qwen2")
    model.backbone.enable_lora(2)
    for variable in model.trainable_variables:
        if "lora" in variable.path:
            variable.assign(np.full(variable.shape, 0.1))
    save_hugging_face(model, tmp_path)
    moved = difference(model, "qwen2")
    assert moved > 0.1
    again = load_causal_lm(tmp_path)
    assert difference(again, "qwen2") == pytest.approx(moved, abs=1e-4)


def test_a_model_of_kerashub_is_written_too(tmp_path):
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )
    model = keras_hub.models.LlamaCausalLM(backbone)
    save_hugging_face(model, tmp_path)
    again = load_causal_lm(tmp_path)
    written, read = ({w.path: w.value for w in m.weights} for m in (model, again))
    assert written.keys() == read.keys()
    for path, weight in written.items():
        np.testing.assert_array_equal(weight, read[path], path)
    assert again.preprocessor is None


WORDS = ["<pad>", "a", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<end>"]
WORDS += ["aa", "<|start_header_id|>", "<|end_header_id|>"]


@pytest.mark.parametrize(
    "end, ids", [("<|end_of_text|>", [3, 4]), ("<end>", 5)], ids=("two", "one")
)
def test_special_ids_of_a_tokenizer_of_kerashub_are_written(end, ids, tmp_path):
    tokenizer = keras_hub.models.Llama3Tokenizer(
        {word: i for i, word in enumerate(WORDS)}, ["a a"], eos_token=end
    )
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )
    preprocessor = keras_hub.models.Llama3CausalLMPreprocessor(tokenizer)
    model = keras_hub.models.Llama3CausalLM(backbone, preprocessor)
    save_hugging_face(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = "bos_token_id", "eos_token_id", "pad_token_id"
    assert [config[name] for name in names] == [2, ids, 0]
    assert not (tmp_path / "tokenizer.json").exists()
    assert load_causal_lm(tmp_path).preprocessor is None


def test_a_token_that_a_tokenizer_lacks_is_written_as_none(tmp_path):
    model = load_causal_lm(FIXTURES / "qwen2")
    save_hugging_face(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    tokenizer = model.preprocessor.tokenizer
    assert tokenizer.start_token_id is None and config["bos_token_id"] is None
    assert config["eos_token_id"] == list(tokenizer.end_token_ids)
    assert config["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize("name", ["mistral", "mistral_tied"])
def test_heads_of_equal_parts_need_no_size(name, tmp_path):
    config = json.loads((FIXTURES / name / "config.json").read_text())
    parts = config["num_attention_heads"] * config["head_dim"]
    source = copied(name, tmp_path, head_dim=..., hidden_size=parts)
    model = load_causal_lm(source, load_weights=False)
    assert model.backbone.head_dim == config["head_dim"]
    save_hugging_face(model, tmp_path / "saved")
    again = load_causal_lm(tmp_path / "saved")
    assert again.backbone.head_dim == config["head_dim"]


def test_another_family_is_refused(tmp_path):
    backbone = keras_hub.models.OPTBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    with pytest.raises(ValueError, match="`model`.*'llama'.*'OPTBackbone'"):
        save_hugging_face(keras_hub.models.OPTCausalLM(backbone), tmp_path)


def test_what_transformers_does_not_compute_is_refused(tmp_path):
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
        head_dim=4,
        final_logit_soft_cap=30.0,
    )
    model = keras_hub.models.GemmaCausalLM(backbone)
    with pytest.raises(ValueError, match="final_logit_soft_cap=None"):
        save_hugging_face(model, tmp_path)
