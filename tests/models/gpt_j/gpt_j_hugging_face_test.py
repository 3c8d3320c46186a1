import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from star_keras.models import GPTJCausalLM, save_hugging_face
from tests.conftest import run_with_torch


@pytest.fixture
def model(make_model):
    model = make_model(num_layers=2)
    # Biases start as zeros, which would hide one that went astray.
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(rng.normal(size=variable.shape))
    return model


def logits(model):
    token_ids = np.arange(1, 25).reshape(2, 12)
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    return np.array(model(inputs), "float32")


def tokens(model, text):
    return list(model.preprocessor.tokenizer(text))


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("max_file_bytes", [10**9, 20_000])
def test_round_trip_has_equal_weights_and_tokens(model, tmp_path, max_file_bytes):
    save_hugging_face(model, tmp_path, max_file_bytes)
    assert len(list(tmp_path.glob("*.safetensors"))) == (
        1 if max_file_bytes > 10**8 else len(set(_weight_map(tmp_path).values()))
    )
    loaded = GPTJCausalLM.from_preset(tmp_path)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)
    text = "Don't\n\nadd 12 + 3!"
    assert tokens(loaded, text) == tokens(model, text)


def _weight_map(directory):
    text = (directory / "model.safetensors.index.json").read_text()
    return json.loads(text)["weight_map"]


def test_bfloat16_round_trip_is_exact_and_half_the_size(make_model, tmp_path):
    save_hugging_face(make_model(), tmp_path / "wide")
    narrow = GPTJCausalLM.from_preset(tmp_path / "wide", dtype="bfloat16")
    save_hugging_face(narrow, tmp_path / "narrow")
    again = GPTJCausalLM.from_preset(tmp_path / "narrow", dtype="bfloat16")
    for ours, theirs in zip(narrow.weights, again.weights, strict=True):
        assert ours.dtype == theirs.dtype == "bfloat16"
        np.testing.assert_array_equal(
            np.array(ours.value, "float32"), np.array(theirs.value, "float32")
        )
    sizes = [
        (tmp_path / name / "model.safetensors").stat().st_size
        for name in ("wide", "narrow")
    ]
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.02)


def test_transformers_loads_what_was_written_and_back(model, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_hugging_face(model, ours, max_file_bytes=20_000)
    run_with_torch("gpt_j_by_transformers", "directory", ours, theirs)
    expected = np.load(theirs / "expected.npz")
    np.testing.assert_allclose(logits(model), expected["logits"], atol=1e-5)
    text = "Don't\n\nadd 12 + 3!"
    assert expected["ids"].tolist() == tokens(model, text)
    assert expected["end"] == model.preprocessor.tokenizer.end_token_id

    loaded = GPTJCausalLM.from_preset(theirs)
    np.testing.assert_allclose(logits(loaded), expected["logits"], atol=1e-5)
    assert tokens(loaded, text) == tokens(model, text)
    for path in ours.iterdir():
        if path.suffix != ".safetensors" and "safetensors" not in path.name:
            shutil.copy(path, theirs / "bin")
    loaded = GPTJCausalLM.from_preset(theirs / "bin")
    np.testing.assert_allclose(logits(loaded), expected["logits"], atol=1e-5)


def test_adapters_are_merged_into_what_is_written(model, tmp_path):
    model.backbone.enable_lora(2)
    for variable in model.trainable_variables:
        if "lora" in variable.path:
            variable.assign(np.full(variable.shape, 0.1))
    save_hugging_face(model, tmp_path)
    loaded = GPTJCausalLM.from_preset(tmp_path)
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-5)


def test_missing_and_unknown_weights_are_named(model, tmp_path):
    save_hugging_face(model, tmp_path)
    path = tmp_path / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    state["transformer.h.0.extra"] = state.pop("lm_head.bias")
    safetensors.numpy.save_file(state, path)
    with pytest.raises(
        ValueError, match=r"Missing: \['lm_head.bias'\].*\['transformer.h.0.extra'\]"
    ):
        GPTJCausalLM.from_preset(tmp_path)


def test_a_weight_of_another_shape_is_named(model, tmp_path):
    save_hugging_face(model, tmp_path)
    path = tmp_path / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    state["lm_head.bias"] = state["lm_head.bias"][:-1]
    safetensors.numpy.save_file(state, path)
    with pytest.raises(ValueError, match="'lm_head.bias' has another shape"):
        GPTJCausalLM.from_preset(tmp_path)


def test_missing_files_are_named(model, tmp_path):
    save_hugging_face(model, tmp_path, max_file_bytes=20_000)
    gone = min(tmp_path.glob("*.safetensors"))
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=gone.name):
        GPTJCausalLM.from_preset(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="There are no weights"):
        GPTJCausalLM.from_preset(tmp_path)


def test_another_activation_is_refused(model, tmp_path):
    save_hugging_face(model, tmp_path)
    edit_config(tmp_path, activation_function="relu")
    with pytest.raises(ValueError, match="activation_function.*gelu_new.*'relu'"):
        GPTJCausalLM.from_preset(tmp_path)


def test_random_weights_on_request(model, tmp_path):
    save_hugging_face(model, tmp_path)
    loaded = GPTJCausalLM.from_preset(tmp_path, load_weights=False)
    assert [v.shape for v in loaded.weights] == [v.shape for v in model.weights]
    assert not np.array_equal(logits(loaded), logits(model))
