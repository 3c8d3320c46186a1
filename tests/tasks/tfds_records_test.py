"""Datasets of TensorFlow Datasets by their names."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from star_keras import tasks
from star_keras.tasks import tfds_records
from star_keras.tasks.record_sources import existing_source, read_records

LABELS = tfds.features.ClassLabel(names=["A", "B", "C"])
RECORD = {
    "question": "Who barks?",
    "answerKey": "B",
    "choices": {"label": ["A", "B"], "text": ["cat", "dog"]},
    "grade": 3,
    "is_easy": True,
    "share": 0.1,
}
UNLABELLED = RECORD | {"question": "Who?", "answerKey": -1}


class StarKerasAnimals(tfds.core.GeneratorBasedBuilder):
    """The layout of `ai2_arc`, with numbers and a truth value."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        choices = tfds.features.Sequence({"text": text, "label": LABELS})
        features = {"question": text, "answerKey": LABELS, "choices": choices}
        features |= {"grade": np.int64, "is_easy": np.bool_, "share": np.float32}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield "one", RECORD
        yield "two", UNLABELLED


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))


def test_a_dataset_is_prepared_and_read_by_its_name(monkeypatch):
    monkeypatch.setattr(tfds_records, "_check_reachable", lambda url: None)
    path = "tfds://star_keras_animals:train"
    records = [record for _, _, record in read_records(existing_source(path, "path"))]
    assert sorted(records, key=lambda record: record["question"]) == [
        RECORD,
        UNLABELLED | {"answerKey": None},
    ]
    task = tasks.get("multiple_choice", train_path=path, eval_path=path)
    answers = {p.question.partition("\n")[0]: p.answer for p in task.questions("train")}
    assert answers == {"Who barks?": "b", "Who?": None}
    with pytest.raises(ValueError, match=r"row \d: Missing 'answer'"):
        task.problems("train")
    source = existing_source("tfds://star_keras_animals:test", "path")
    with pytest.raises(ValueError, match=r"no split 'test'.*\['train'\]"):
        list(read_records(source))


def test_no_network_is_told_at_once_with_what_to_do(monkeypatch):
    monkeypatch.setattr(tfds_records, "_LIBRARY_URL", "http://127.0.0.1:9/")
    source = existing_source("tfds://star_keras_animals:train[:1]", "path")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9.*TFDS_DATA_DIR"):
        list(read_records(source))


@pytest.mark.parametrize("path", ["tfds://name", "tfds://a/b/c:train", "tfds://:train"])
def test_malformed_names_are_refused(path):
    with pytest.raises(ValueError, match="`path`.*tfds://NAME:SPLIT"):
        existing_source(path, "path")


@pytest.mark.parametrize("name", ["star_keras_nothing", "ai2_arc/Nothing"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=f"tfds://{name}.*Correct its"):
        list(read_records(existing_source(f"tfds://{name}:train", "path")))
