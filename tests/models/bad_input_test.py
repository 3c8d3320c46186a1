"""Presets that are half, empty, or of something else."""

import json
import shutil

import h5py
import pytest

from star_keras.models import (
    GPTJCausalLM,
    load_causal_lm,
    load_mesh_transformer,
    save_hugging_face,
)
from star_keras.models.gpt_j.gpt_j_hugging_face import (
    find_hugging_face_gpt_j,
    load_hugging_face_gpt_j,
)
from star_keras.models.hugging_face.load import (
    find_hugging_face,
    load_hugging_face_causal_lm,
)
from star_keras.models.preset_files import check_files
from star_keras.testing import tiny_causal_lm, tiny_gpt_j
from tests.models.hugging_face.cases import FIXTURES

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


@pytest.fixture(scope="module")
def whole_preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "whole"
    tiny_gpt_j(num_layers=1, hidden_dim=16).save_to_preset(path)
    return path


@pytest.fixture
def preset(whole_preset, tmp_path):
    return shutil.copytree(whole_preset, tmp_path / "preset")


def delete(path):
    path.unlink()


def half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def text(content):
    return lambda path: path.write_text(content)


def without_a_weight(path):
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
        del file[names[0]]


DAMAGE = [
    ("config.json", delete, "`preset`. Expected"),
    (
        "config.json",
        half,
        "config.json is damaged: not valid.*Copy the file again",
    ),
    ("config.json", text(""), "config.json is damaged: not valid JSON"),
    ("config.json", text("[]"), "config.json is damaged: expected a JSON object"),
    ("config.json", text(LFS), "config.json is a Git LFS pointer.*git lfs pull"),
    ("task.json", delete, "has no task.json.*head of this GPTJCausalLM .* random"),
    ("task.json", half, "task.json is damaged: not valid JSON"),
    ("task.json", text("[]"), "task.json is damaged: expected a JSON object"),
    ("task.weights.h5", delete, "has no task.weights.h5.*random"),
    ("task.weights.h5", half, "task.weights.h5 is damaged.*truncated"),
    ("task.weights.h5", text(""), "task.weights.h5 is damaged"),
    ("task.weights.h5", text(LFS), "task.weights.h5 is a Git LFS pointer"),
    ("task.weights.h5", without_a_weight, "lm_head"),
    ("model.weights.h5", delete, "model.weights"),
    ("model.weights.h5", half, "model.weights.h5 is damaged.*truncated"),
    ("model.weights.h5", text(LFS), "model.weights.h5 is a Git LFS pointer"),
    ("model.weights.h5", without_a_weight, "expected|[Ll]ayer"),
    ("assets/tokenizer/vocabulary.json", delete, "vocabulary"),
    ("assets/tokenizer/vocabulary.json", text("{}"), "vocabulary|end"),
    ("assets/tokenizer/vocabulary.json", half, "vocabulary.json is damaged: not val"),
    ("tokenizer.json", half, "tokenizer.json is damaged: not valid JSON"),
    ("preprocessor.json", half, "preprocessor.json is damaged: not valid JSON"),
    ("metadata.json", half, "metadata.json is damaged: not valid JSON"),
]


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_a_damaged_preset_is_an_error_that_names_the_file(
    preset, name, damage, message
):
    damage(preset / name)
    with pytest.raises((ValueError, OSError), match=message):
        load_causal_lm(str(preset))


@pytest.mark.parametrize("name", ["task.json", "task.weights.h5"])
def test_the_class_itself_refuses_a_preset_without_its_head(preset, name):
    (preset / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        GPTJCausalLM.from_preset(preset)
    model = GPTJCausalLM.from_preset(preset, load_weights=False)
    assert model.backbone.num_layers == 1


@pytest.fixture(scope="module")
def whole_gpt_j(tmp_path_factory):
    path = tmp_path_factory.mktemp("hugging_face") / "gpt_j"
    save_hugging_face(tiny_gpt_j(num_layers=1, hidden_dim=16), path)
    return path


def field(name, value):
    def change(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


def without(name):
    def change(path):
        content = json.loads(path.read_text())
        del content[name]
        path.write_text(json.dumps(content))

    return change


SIZES = ["vocab_size", "n_layer", "n_head", "n_embd", "rotary_dim", "n_positions"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        *((n, text(LFS), "Git LFS pointer") for n in ("config.json", "vocab.json")),
        ("model.safetensors", half, "model.safetensors is damaged.*header"),
        ("model.safetensors", text(""), "model.safetensors is damaged.*header"),
        ("model.safetensors", text("{}" * 500), "model.safetensors is damaged.*header"),
        ("model.safetensors", text(LFS), "model.safetensors is a Git LFS pointer"),
        ("model.safetensors", delete, "no weights"),
        ("vocab.json", half, "vocab.json is damaged: not UTF-8"),
        ("vocab.json", text("{}"), "vocab.json is damaged: it has no tokens"),
        ("merges.txt", text(""), "merges.txt is damaged: it has no merges"),
        ("merges.txt", text(LFS), "merges.txt is a Git LFS pointer"),
        ("merges.txt", text("#version: 0.2\n"), "0 merges, and none makes 'qz'"),
        ("merges.txt", text("#version: 0.2\nq"), "merge 1 is 'q'. Expected two tok"),
        ("merges.txt", text("q z\nq z z\n"), "merge 2 is 'q z z'"),
        ("merges.txt", text("q z\nq a\n"), "merge 2 is 'q a'"),
        *(
            ("config.json", field(n, value), f"config.json is damaged: .*`{n}` is ")
            for n in SIZES
            for value in (None, "x", 0, -1, 1.5, True)
        ),
        *(("config.json", without(n), f"config.json lacks.*`{n}`") for n in SIZES),
    ],
)
def test_a_damaged_hugging_face_directory_is_an_error_that_names_the_file(
    whole_gpt_j, tmp_path, name, damage, message
):
    path = shutil.copytree(whole_gpt_j, tmp_path / "gpt_j")
    damage(path / name)
    for load in (load_causal_lm, GPTJCausalLM.from_preset):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load(str(path))


@pytest.mark.parametrize("find", [find_hugging_face, find_hugging_face_gpt_j])
@pytest.mark.parametrize("damage", [half, text(""), text("[]"), text(LFS)])
def test_a_directory_with_a_damaged_config_is_no_other_checkpoint(
    whole_gpt_j, tmp_path, find, damage
):
    path = shutil.copytree(whole_gpt_j, tmp_path / "gpt_j")
    damage(path / "config.json")
    with pytest.raises(ValueError, match="config.json is (damaged|a Git LFS pointer)"):
        find(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_the_loaders_check_the_files_of_a_directory(whole_gpt_j, tmp_path, name):
    for whole, load in (
        (whole_gpt_j, lambda path: load_hugging_face_gpt_j(GPTJCausalLM, path)),
        (FIXTURES / "llama_tied", load_hugging_face_causal_lm),
    ):
        path = shutil.copytree(whole, tmp_path / whole.name)
        for damage in half, text("[]"), text(LFS):
            damage(path / name)
            with pytest.raises(ValueError, match=f"{name} is (damaged|a Git LFS poin)"):
                load(path)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_config_of_a_mesh_transformer_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="config.json: (not valid|expected a) JSON"):
        load_mesh_transformer(tmp_path, path)


@pytest.mark.parametrize("whole", ["whole_preset", "whole_gpt_j"])
def test_other_files_in_the_directory_of_a_model_do_not_matter(
    request, tmp_path, whole
):
    path = shutil.copytree(request.getfixturevalue(whole), tmp_path / "model")
    (path / "modules.json").write_text("[]")
    (path / "samples.json").write_text("")
    (path / "notes.h5").write_text("mine")
    (path / "consolidated.safetensors").write_text(LFS)
    assert load_causal_lm(str(path)).backbone.num_layers == 1


FIELDS = [
    *(
        ("config.json", name, value, "a finite number above 0")
        for name in ("rms_norm_eps", "rope_theta")
        for value in ("x", 0, -1e-5, True, [1], {})
    ),
    *(
        ("config.json", "eos_token_id", value, "an integer or a list of integers")
        for value in ("x", 1.5, True, ["x"], {})
    ),
    *(
        ("config.json", name, value, "an object or null")
        for name in ("rope_scaling", "rope_parameters")
        for value in ("x", 2, ["linear"], True)
    ),
    *(
        ("config.json", name, value, "true or false")
        for name in ("tie_word_embeddings", "attention_bias", "mlp_bias")
        for value in ("false", 0, 1, [])
    ),
    ("config.json", "rope_scaling", {"rope_type": 3}, "a string"),
    *(
        ("config.json", "rope_scaling", {"rope_type": "linear", "factor": value}, rule)
        for value, rule in (("2", "a finite number"), (0, "above 0"), ([2], "above 0"))
    ),
    ("config.json", "hidden_act", ["silu"], "a string"),
    ("config.json", "attention_dropout", "0", "a number from 0 to 1"),
    ("config.json", "head_dim", "8", "an integer of at least 1"),
    ("config.json", "layer_types", "full_attention", "a list of strings"),
    ("config.json", "max_window_layers", -1, "an integer of at least 0"),
    ("generation_config.json", "eos_token_id", "x", "an integer or a list"),
    ("tokenizer_config.json", "eos_token", 5, "a string, or an object"),
    ("tokenizer_config.json", "pad_token", {"text": "x"}, "a string, or an object"),
]


@pytest.mark.parametrize(("name", "key", "value", "rule"), FIELDS)
def test_a_field_of_another_type_is_named_with_its_rule(
    tmp_path, name, key, value, rule
):
    path = tmp_path / name
    path.write_text(json.dumps({"model_type": "llama", key: value}))
    message = rf"{name} is damaged: the field `{key}[\w.]*` is .*Expected.*{rule}"
    with pytest.raises(ValueError, match=message):
        check_files(tmp_path)


def test_an_empty_vocabulary_is_named(tmp_path):
    path = shutil.copytree(FIXTURES / "llama_tied", tmp_path / "llama")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"] |= {"vocab": {}, "merges": []}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="tokenizer.json is damaged: its vocabulary"):
        load_causal_lm(path)


NO_ROPE = {
    "rope_frequency_adjustment_factor": None,
    "rope_low_freq_factor": None,
    "rope_high_freq_factor": None,
    "rope_pretraining_sequence_length": None,
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rope_yarn": {"factor": 2.0}}, "`rope_yarn`.*`None` with another scaling"),
        (NO_ROPE | {"rope_yarn": {"factor": 2.0}}, "`rope_yarn`.*a dict of .'factor'"),
        ({"window_layers": (2,)}, "`window_layers`.*numbers from 0 to 1"),
        ({"sliding_window": None}, "`sliding_window`.*at least 1"),
        ({"layers_without_rope": (-1,)}, "`layers_without_rope`.*numbers from 0"),
        ({"head_dim": 3}, "`head_dim`.*an even number"),
        ({"num_key_value_heads": 3}, "`num_key_value_heads`.*a divisor"),
    ],
)
def test_arguments_of_a_general_llama_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_causal_lm("general_llama", **arguments)
