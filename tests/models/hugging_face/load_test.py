import json
import types

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy

from star_keras.models import load_causal_lm
from star_keras.models.hugging_face.load import load_hugging_face_causal_lm
from tests.conftest import run_on_eight_devices
from tests.models.hugging_face.cases import (
    CASES,
    FIXTURES,
    copied,
    difference,
    expected,
    loaded,
)

LLAMA = "llama_tied"
ONE_A_FAMILY = (
    "llama_tied",
    "llama_untied",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "llama_general",
    "qwen2_window",
    "gemma2_scale",
    "gpt_neox",
    "mixtral",
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPE = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name):
    assert difference(loaded(name), name) < 5e-5
    assert expected(name)["logits"].std() > 1  # the tolerance means something


@pytest.mark.parametrize(
    "name, changes",
    [
        ("llama_tied", {"rms_norm_eps": 1e-6}),
        ("llama_untied", {"rms_norm_eps": 1e-5}),
        ("llama_tied", {"rope_parameters": {"rope_theta": 10000.0}}),
        ("llama_untied", {"rope_scaling": None}),
        (
            "llama_rope_parameters",
            {
                "rope_parameters": ROPE
                | {
                    "rope_theta": 5000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
        ),
        ("llama_linear", {"rope_parameters": {"rope_theta": 10000.0}}),
        ("llama_general", {"rms_norm_eps": 1e-6}),
        ("llama_general", {"rope_parameters": {"rope_theta": 10000.0}}),
        ("mistral_tied", {"sliding_window": None}),
        ("qwen2_yarn", {"rope_scaling": None}),
        ("qwen2_yarn", {"rope_scaling": YARN | {"beta_slow": 0.05}}),
        ("qwen2_yarn", {"rope_scaling": YARN | {"truncate": False}}),
        ("qwen2_window", {"sliding_window": 5}),
        ("qwen2_window", {"use_sliding_window": False, "layer_types": ...}),
        ("qwen3_window", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("mixtral", {"num_experts_per_tok": 1}),
        ("mixtral", {"sliding_window": None}),
        ("mixtral", {"rope_parameters": {"rope_theta": 10000.0}}),
        ("phi3", {"sliding_window": 7}),
        ("smollm3", {"no_rope_layers": [1, 1]}),
        ("smollm3", {"no_rope_layers": ..., "no_rope_layer_interval": 1}),
        ("gpt_neox", {"hidden_act": "gelu_fast"}),
        ("gpt_neox", {"layer_norm_eps": 1e-3}),
        ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.5}}),
        ("gpt_neox", {"rope_parameters": ..., "rotary_pct": 0.5}),
        ("gpt_neox_20b", {"rotary_emb_base": 5000}),
        ("gemma2_scale", {"query_pre_attn_scalar": 16}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"rope_parameters": {"rope_theta": 20000.0}}),
        ("qwen3", {"rms_norm_eps": 1e-5}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma3", {"sliding_window": 6}),
        ("gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ],
)
def test_each_field_changes_the_logits(name, changes, tmp_path):
    model = load_causal_lm(copied(name, tmp_path, **changes))
    assert difference(model, name) > 1e-3


def test_the_dtype_is_a_choice():
    model = load_causal_lm(FIXTURES / LLAMA, dtype="bfloat16")
    assert {variable.dtype for variable in model.weights} == {"bfloat16"}
    assert 1e-4 < difference(model, LLAMA) < 1


@pytest.mark.parametrize(
    "name", ("llama_untied", "qwen2", "gemma3", "qwen3_window", "gpt_neox")
)
def test_generation_continues_a_text(name):
    model = load_causal_lm(FIXTURES / name)
    model.compile(sampler="greedy")
    assert model.generate("12 + 3", max_length=12).startswith("12 + 3")


def test_random_weights_on_request():
    model = load_causal_lm(FIXTURES / LLAMA, load_weights=False)
    shapes = [variable.shape for variable in loaded(LLAMA).weights]
    assert [variable.shape for variable in model.weights] == shapes
    assert difference(model, LLAMA) > 0.1


def test_a_preprocessor_is_a_choice():
    assert load_causal_lm(FIXTURES / LLAMA, preprocessor=None).preprocessor is None


def test_each_tensor_is_reported():
    read = []
    load_hugging_face_causal_lm(FIXTURES / LLAMA, on_weight=lambda: read.append(1))
    with safetensors.safe_open(
        FIXTURES / LLAMA / "model.safetensors", framework="numpy"
    ) as file:
        assert len(read) == len(file.keys())


def test_a_copy_of_the_embedding_may_be_stored_as_the_head(tmp_path):
    directory = copied(LLAMA, tmp_path)
    state = safetensors.numpy.load_file(directory / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].copy()
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, "float32")
    safetensors.numpy.save_file(state, directory / "model.safetensors")
    assert difference(load_causal_lm(directory), LLAMA) < 5e-5
    state["lm_head.weight"][0, 0] += 1
    safetensors.numpy.save_file(state, directory / "model.safetensors")
    with pytest.raises(ValueError, match="'lm_head.weight' is not 'model.embed_tok"):
        load_causal_lm(directory)


def test_missing_and_unknown_weights_are_named(tmp_path):
    directory = copied(LLAMA, tmp_path)
    state = safetensors.numpy.load_file(directory / "model.safetensors")
    state["model.layers.0.extra"] = state.pop("model.norm.weight")
    safetensors.numpy.save_file(state, directory / "model.safetensors")
    with pytest.raises(
        ValueError,
        match=r"Missing: \['model.norm.weight'\].*\['model.layers.0.extra'\]",
    ):
        load_causal_lm(directory)


def test_an_untied_head_is_needed(tmp_path):
    directory = copied(LLAMA, tmp_path, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"Missing: \['lm_head.weight'\]"):
        load_causal_lm(directory)


def test_a_weight_of_another_shape_is_named(tmp_path):
    directory = copied(LLAMA, tmp_path, intermediate_size=40)
    with pytest.raises(ValueError, match=r"mlp.*another shape.*\(40, 32\).*\(48, 32\)"):
        load_causal_lm(directory)


def test_missing_files_are_named(tmp_path):
    directory = copied("llama_untied", tmp_path)
    gone = min(directory.glob("*.safetensors"))
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=gone.name):
        load_causal_lm(directory)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="There are no weights"):
        load_causal_lm(directory)


def test_an_index_that_names_a_tensor_that_is_not_there_is_an_error(tmp_path):
    directory = copied("llama_untied", tmp_path)
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.extra"] = index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="the tensor 'model.extra'"):
        load_causal_lm(directory)


def test_another_model_type_is_an_error_that_lists_the_known_ones(tmp_path):
    directory = copied(LLAMA, tmp_path, model_type="qwen2_moe")
    with pytest.raises(
        ValueError, match="'gptj', 'llama', .*'gpt_neox'.*'qwen2_moe'"
    ) as e:
        load_causal_lm(directory)
    assert "keras_hub.models.CausalLM.from_preset(directory)" in str(e.value)


@pytest.fixture
def hub(monkeypatch):
    """A hub with one repository. Its `files` are for the test, `downloaded` is ours."""
    hub = types.SimpleNamespace(directory=FIXTURES / LLAMA, files=[], downloaded=[])

    def snapshot(repository, allow_patterns):
        hub.downloaded.append((repository, allow_patterns))
        return str(hub.directory)

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _, file: str(hub.directory / file)
    )
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda _: hub.files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return hub


@pytest.mark.parametrize(
    "files, weights",
    [
        (["model.safetensors", "pytorch_model.bin"], "model*.safetensors"),
        (["model-00001-of-00002.safetensors"], "model*.safetensors"),
        (["pytorch_model.bin"], "pytorch_model*"),
        (["adapter_model.safetensors", "pytorch_model.bin"], "pytorch_model*"),
        (["consolidated.safetensors", "pytorch_model.bin"], "pytorch_model*"),
    ],
)
def test_a_handle_downloads_what_is_read(files, weights, hub):
    hub.files = [*files, "tokenizer.json", "tokenizer.model"]
    model = load_causal_lm("hf://organization/name")
    assert difference(model, LLAMA) < 5e-5
    patterns = ["*.json", "*.jinja", weights]
    assert hub.downloaded == [("organization/name", patterns)]


def test_a_handle_with_another_kind_of_tokenizer_is_an_error(hub):
    hub.files = ["model.safetensors", "tokenizer.model"]
    with pytest.raises(ValueError, match="name has .'tokenizer.model'.*no tokenizer.j"):
        load_causal_lm("hf://organization/name")
    assert not hub.downloaded
    model = load_causal_lm("hf://organization/name", preprocessor=None)
    assert hub.downloaded and model.preprocessor is None


def test_a_handle_of_another_model_type_is_an_error(hub, tmp_path):
    hub.directory = copied(LLAMA, tmp_path, model_type="olmo")
    with pytest.raises(ValueError, match="hf://organization/name: .*'olmo'"):
        load_causal_lm("hf://organization/name")
    assert not hub.downloaded


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_a_preset_that_was_saved_computes_the_same(name, tmp_path):
    loaded(name).save_to_preset(str(tmp_path))
    again = load_causal_lm(tmp_path)
    assert difference(again, name) < 5e-5
    tokenizers = [m.preprocessor.tokenizer for m in (loaded(name), again)]
    text = "Q:  don't\n\nadd 12 + 3!"
    assert tokenizers[0]([text]) == tokenizers[1]([text])
    assert tokenizers[0].get_config() == tokenizers[1].get_config()


def test_weights_are_read_into_their_shards():
    found = run_on_eight_devices("models_hugging_face_on_a_mesh")
    llama, mixtral = found["llama_untied"], found["mixtral"]
    assert llama["difference"] < 1e-4
    assert llama["shards"]["self_attention/query/kernel"] == [32, 1, 8]
    assert llama["shards"]["token_embedding/embeddings"] == [76, 32]
    assert llama["shards"]["token_embedding/reverse_embeddings"] == [32, 76]
    assert mixtral["difference"] < 1e-4
    gate = next(k for k in mixtral["shards"] if k.endswith("forward_gate_dense"))
    assert mixtral["shards"][gate] == [3, 32, 12]
