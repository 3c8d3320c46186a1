"""A builder of CommonsenseQA for TensorFlow Datasets."""

import json
from pathlib import Path

import tensorflow_datasets as tfds

from star_keras.tasks.commonsense_qa import FILES, URL


class CommonsenseQABuilder(tfds.core.GeneratorBasedBuilder):
    """CommonsenseQA's training and development problems.

    A record has the fields of the official files: `id`, `answerKey` and
    `question` with `stem`, `question_concept` and `choices`, each with `label`
    and `text`, in their order.
    """

    name = "star_keras_commonsense_qa"
    VERSION = tfds.core.Version("1.11.0")
    RELEASE_NOTES = {"1.11.0": "The random split of CommonsenseQA 1.11."}

    def _info(self):
        text = tfds.features.Text()
        return self.dataset_info_from_configs(
            description="Common-sense questions with five choices.",
            homepage="https://www.tau-nlp.sites.tau.ac.il/commonsenseqa",
            features=tfds.features.FeaturesDict(
                {
                    "id": text,
                    "answerKey": text,
                    "question": {
                        "stem": text,
                        "question_concept": text,
                        "choices": tfds.features.Sequence(
                            {"label": text, "text": text}
                        ),
                    },
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        paths = dl_manager.download({s: URL + f for s, f in FILES.items()})
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path):
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                yield number, json.loads(line)
