"""The directories of `tests/fixtures/hugging_face`, and what is expected of them."""

import functools
import json
import shutil

import numpy as np

from star_keras.models import load_causal_lm
from tests.conftest import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "hugging_face"
TEMPLATES = ROOT / "tests" / "fixtures" / "chat_templates"
CASES = sorted(path.name for path in FIXTURES.iterdir())


@functools.cache
def loaded(name):
    """The model of a case, shared by the tests: not to be changed."""
    return load_causal_lm(FIXTURES / name)


@functools.cache
def expected(name):
    """Arrays `token_ids`, `attention_mask` and `logits` of a case."""
    with np.load(FIXTURES / name / "expected.npz") as file:
        return {key: file[key] for key in file.files}


@functools.cache
def expected_ids(name):
    """The `texts` of a case, their `ids`, and their `plain_ids` without start token."""
    text = (FIXTURES / name / "expected.json").read_text(encoding="utf-8")
    return json.loads(text)


def difference(model, name):
    """The largest difference of a model's logits from those of transformers."""
    arrays = expected(name)
    mask = arrays["attention_mask"]
    logits = model({"token_ids": arrays["token_ids"], "padding_mask": mask})
    return np.abs(np.asarray(logits, "float32") - arrays["logits"])[mask == 1].max()


def copied(name, tmp_path, **changes):
    """A copy of a case with other fields in its config.json; `...` drops a field."""
    directory = tmp_path / name
    shutil.copytree(FIXTURES / name, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    path.write_text(json.dumps(kept))
    return directory


def copied_with_template(name, template, tmp_path):
    """A copy of a case with one of the chat templates."""
    directory = copied(name, tmp_path)
    shutil.copy(TEMPLATES / f"{template}.jinja", directory / "chat_template.jinja")
    return directory
