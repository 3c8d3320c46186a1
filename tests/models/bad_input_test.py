"""Presets that are half, empty, or of something else."""

import shutil

import h5py
import pytest

from star_keras.models import GPTJCausalLM, load_causal_lm
from star_keras.testing import tiny_gpt_j

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
    ("config.json", half, "config.json: not valid JSON.*Copy the file again"),
    ("config.json", text(""), "config.json: not valid JSON"),
    ("config.json", text("[]"), "config.json: expected a JSON object"),
    ("config.json", text(LFS), "config.json is a Git LFS pointer.*git lfs pull"),
    ("task.json", delete, "has no task.json.*head of this GPTJCausalLM .* random"),
    ("task.json", half, "task.json: not valid JSON"),
    ("task.json", text("[]"), "task.json: expected a JSON object"),
    ("task.weights.h5", delete, "has no task.weights.h5.*random"),
    ("task.weights.h5", half, "task.weights.h5 is no whole HDF5 file.*truncated"),
    ("task.weights.h5", text(""), "task.weights.h5 is no whole HDF5 file"),
    ("task.weights.h5", text(LFS), "task.weights.h5 is a Git LFS pointer"),
    ("task.weights.h5", without_a_weight, "lm_head"),
    ("model.weights.h5", delete, "model.weights"),
    ("model.weights.h5", half, "model.weights.h5 is no whole HDF5 file.*truncated"),
    ("model.weights.h5", text(LFS), "model.weights.h5 is a Git LFS pointer"),
    ("model.weights.h5", without_a_weight, "expected|[Ll]ayer"),
    ("assets/tokenizer/vocabulary.json", delete, "vocabulary"),
    ("assets/tokenizer/vocabulary.json", text("{}"), "vocabulary|end"),
    ("tokenizer.json", half, "tokenizer.json: not valid JSON"),
    ("preprocessor.json", half, "preprocessor.json: not valid JSON"),
    ("metadata.json", half, "metadata.json: not valid JSON"),
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
