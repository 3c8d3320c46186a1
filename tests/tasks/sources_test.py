"""The same problems from files and from TensorFlow Datasets."""

import json

import pytest
import tensorflow_datasets as tfds

from star_keras import tasks
from star_keras.tasks import commonsense_qa, gsm8k, tfds_records

CHOICES = ["desk", "harbor", "sea", "lake", "roof"]
CQA = [
    {
        "answerKey": "ABCDE"[n % 5],
        "id": f"id-{n}",
        "question": {
            "question_concept": "boat",
            "choices": [
                {"label": label, "text": f"{text} {n}"}
                for label, text in zip("ABCDE", CHOICES, strict=True)
            ],
            "stem": f"Where is boat number {n}?",
        },
    }
    for n in range(12)
]
GSM8K = [
    {"question": f"What is {n} and {n}?", "answer": f"Twice {n}.\n#### {2 * n}"}
    for n in range(12)
]


@pytest.fixture
def official_files(tmp_path, monkeypatch):
    """A directory of official files, which downloads come from as well."""
    directory = tmp_path / "official"
    directory.mkdir()
    for name, records in (
        ("train_rand_split.jsonl", CQA),
        ("dev_rand_split.jsonl", CQA[:3]),
        ("train.jsonl", GSM8K),
        ("test.jsonl", GSM8K[:4]),
        ("train_socratic.jsonl", GSM8K),
        ("test_socratic.jsonl", GSM8K[:4]),
    ):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (directory / name).write_text(text)

    def download(self, urls):
        return {k: directory / url.rpartition("/")[2] for k, url in urls.items()}

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)
    monkeypatch.setattr(tfds_records, "_check_reachable", lambda *_: None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return directory


@pytest.mark.parametrize(
    ("name", "kwargs"), [("commonsense_qa", {}), ("gsm8k", {"validation_problems": 3})]
)
def test_tensorflow_datasets_have_the_problems_of_the_files(
    name, kwargs, official_files
):
    from_files = tasks.get(name, data_dir=official_files, **kwargs)
    from_tfds = tasks.get(name, **kwargs)
    for split in from_files.splits:
        assert from_tfds.problems(split) == from_files.problems(split)
        assert len(from_tfds.problems(split)) > 2


@pytest.mark.parametrize("name", ["commonsense_qa", "gsm8k"])
def test_no_network_is_told_at_once_with_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setattr(commonsense_qa, "URL", "http://127.0.0.1:9/")
    monkeypatch.setattr(gsm8k, "_URL", "http://127.0.0.1:9/train.jsonl")
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9.*train.*jsonl.*data_dir"):
        tasks.get(name).problems("train")


def test_a_missing_official_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train.jsonl"):
        tasks.get("gsm8k", data_dir=tmp_path).problems("train")
