"""Common-sense questions with five choices (CommonsenseQA).

One of its problems as the model sees it; a hint marks the right choice:

    Q: What kind of place could have a seafood restaurant?
    Answer Choices:
    (a) new york
    (b) coastal cities
    (c) city (CORRECT)
    (d) coastal cities
    (e) boston
    A:
"""

import functools

from star_keras.tasks.multiple_choice import MultipleChoice
from star_keras.tasks.record_sources import existing_file
from star_keras.tasks.sources import (
    existing_sources,
    files_remedy,
    own_examples,
    read_problems,
)
from star_keras.tasks.tfds_records import tfds_records
from star_keras.utils.errors import invalid

FILES = {"train": "train_rand_split.jsonl", "eval": "dev_rand_split.jsonl"}
URL = "https://s3.amazonaws.com/commensenseqa/"


class CommonsenseQA(MultipleChoice):
    """CommonsenseQA, 9,741 training and 1,221 development problems.

    `"eval"` is the official development set, as in the paper: the answers of
    the official test set are not public. An answer is a lower-case letter;
    some problems have the same choice twice.

    Args:
        data_dir: Directory with the official `train_rand_split.jsonl` and
            `dev_rand_split.jsonl`. By default TensorFlow Datasets downloads
            them, see `star_keras.tasks.commonsense_qa_builder`.
        train_path: A file or a dataset in place of the official one, with records
            like those of CommonsenseQA, ARC or MMLU: see
            `star_keras.tasks.choices.read_choices`.
        eval_path: The same for `"eval"`.

    Raises:
        ConnectionError: by `problems`, if the download fails.
        FileNotFoundError: if a file or directory is missing; by `problems`, if an
            official file is.
        ValueError: if a path is invalid, or `data_dir` is given besides both files; by
            `problems`, if there is no such split, or a line is malformed.

    Reference:
        [CommonsenseQA](https://arxiv.org/abs/1811.00937).
    """

    name = "commonsense_qa"
    takes_equal_choices = True  # 48 official records have the right choice twice

    def __init__(self, data_dir=None, train_path=None, eval_path=None):
        self._data_dir, self._paths = existing_sources(data_dir, train_path, eval_path)
        if data_dir is not None and None not in self._paths.values():
            rule = "`None` with train_path and eval_path, which take its place"
            raise invalid("data_dir", rule, data_dir, "Leave it out.")

    def problems(self, split):
        return self._read(split, needs_answers=True)

    def questions(self, split):
        return self._read(split, needs_answers=split != "train")

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _read(self, split, needs_answers):
        self.check_split(split)
        path = self._paths[split]
        if path is None and self._data_dir is not None:
            path = existing_file(self._data_dir / FILES[split], "data_dir")
        if path is not None:
            make = functools.partial(self.problem_of, needs_answer=needs_answers)
            return read_problems(path, make, split)
        from star_keras.tasks.commonsense_qa_builder import CommonsenseQABuilder

        url, remedy = URL + FILES[split], files_remedy(FILES)
        records = tfds_records(CommonsenseQABuilder(), split, url, remedy)
        return [self.make_problem(record, "") for record in records]

    @functools.cached_property
    def few_shot_examples(self):
        return own_examples(self)
