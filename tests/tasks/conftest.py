"""Tasks of files."""

import json

import pytest

from star_keras import tasks


@pytest.fixture
def make_file_task(tmp_path):
    """Makes a task by its name whose records are training and held-out problems."""

    def make(name, *records, **kwargs):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return tasks.get(name, train_path=path, eval_path=path, **kwargs)

    return make
