import keras_hub
import numpy as np
import pytest

from star_keras.models import (
    GPTJCausalLM,
    PackedCausalLM,
    load_causal_lm,
    save_hugging_face,
)
from star_keras.models.presets import preset_names


@pytest.mark.parametrize("name", preset_names())
def test_preset_of_this_package_loads_by_name_from_any_directory(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model, other = load_causal_lm(name), GPTJCausalLM.from_preset(name)
    assert model.count_params() == other.count_params()
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.value, two.value)
    ids = model.preprocessor.tokenizer("12 + 3")
    assert model.preprocessor.tokenizer.detokenize(ids) == "12 + 3"


def test_shipped_model_adds_numbers_of_two_digits():
    model = load_causal_lm("arithmetic_base")
    model.compile(sampler="greedy")
    text = model.generate("Input:\n1 2 + 3 4\nTarget:\n", max_length=64)
    assert text.endswith("</scratch>\n4 6")


def test_hugging_face_directory_is_a_gpt_j(make_model, tmp_path):
    model = make_model(num_layers=1)
    save_hugging_face(model, tmp_path)
    loaded = load_causal_lm(tmp_path, dtype="bfloat16")
    assert type(loaded) is GPTJCausalLM
    assert loaded.dtype_policy.name == "bfloat16"
    assert [w.shape for w in loaded.weights] == [w.shape for w in model.weights]


def test_preset_of_another_model_is_that_model(tmp_path):
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    model.save_to_preset(str(tmp_path))
    loaded = load_causal_lm(tmp_path, preprocessor=None)
    assert isinstance(loaded, keras_hub.models.GPT2CausalLM)
    assert isinstance(loaded, PackedCausalLM)


@pytest.mark.parametrize("preset", ("arithmetic", "no/such/directory"))
def test_unknown_preset_is_an_error_with_the_names_of_the_known_ones(preset):
    message = rf"`preset`.*'arithmetic_base'.*preset={preset!r}"
    with pytest.raises(ValueError, match=message):
        load_causal_lm(preset)


def test_directory_that_is_no_preset_is_an_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="`preset`.*has no config.json. Copy it too"):
        load_causal_lm(tmp_path)
    with pytest.raises(ValueError, match=rf"`preset`.*Pass its directory, {tmp_path}"):
        load_causal_lm(tmp_path / "model.safetensors")


def test_gguf_files_are_to_be_converted_first(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "model.gguf"):
        remedy = rf"`preset`.*experiments\.convert --source={path} --to=hugging_face"
        with pytest.raises(ValueError, match=remedy):
            load_causal_lm(path)
