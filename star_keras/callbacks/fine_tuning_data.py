"""The examples of a fine-tuning: batches to train on, the evaluation, the identity."""

import functools
import math
import zlib
from collections.abc import Callable

from star_keras.config import TrainingConfig
from star_keras.training.checks import check_examples
from star_keras.training.dataset import (
    evaluation_batches,
    training_batches,
    training_dataset,
)
from star_keras.training.packing import pack
from star_keras.training.stored_examples import StoredExamples


class FineTuningData:
    """Examples to train a model on, and held-out ones.

    Args:
        model: A compiled `star_keras.models.PackedCausalLM` with a preprocessor.
        examples: `StoredExamples` to train on.
        eval_examples: optional `StoredExamples` to evaluate on.
        sizes: Has `batch_size` and `sequence_length`.
        seed: int. Determines the order of the examples.

    Attributes:
        is_evaluated: Whether there are held-out examples.

    Raises:
        ValueError: if examples are of another type, none, too long, or without weight.
    """

    def __init__(
        self, model, examples, eval_examples, *, sizes: TrainingConfig, seed: int
    ):
        self.is_evaluated = eval_examples is not None
        check_examples("examples", examples, sizes.sequence_length)
        if self.is_evaluated:
            check_examples("eval_examples", eval_examples, sizes.sequence_length)
        self._model, self._examples, self._eval = model, examples, eval_examples
        self._seed = seed
        self._shape = {
            "batch_size": sizes.batch_size,
            "sequence_length": sizes.sequence_length,
        }

    def describe(self) -> dict:
        """The identity of the examples and of their order, as JSON."""
        return {
            "seed": self._seed,
            **self._shape,
            "examples": _digest(self._examples),
            "eval_examples": self.is_evaluated and _digest(self._eval),
        }

    def dataset(self, first_step: Callable[[], int]):
        """An endless `tf.data.Dataset` of the training batches, see `make_row`.

        Args:
            first_step: Called when an epoch begins; returns its first step.
        """

        def batches(**shape):
            return training_batches(
                self._examples,
                pad_id=self._pad_id,
                seed=(self._seed,),
                start=first_step(),
                **shape,
            )

        return training_dataset(batches, **self._shape)

    def build(self):
        """Make the variables that the model would make in its first step."""
        model = self._model
        model.optimizer.build(model.trainable_variables)
        if not all(getattr(metric, "built", True) for metric in model.metrics):
            model.evaluate(self.dataset(lambda: 0), steps=1, verbose=0)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the held-out examples: `val_loss`, `val_perplexity`, your own."""
        batches = functools.partial(evaluation_batches, self._eval, pad_id=self._pad_id)
        rows = len(pack(self._eval.lengths.tolist(), self._shape["sequence_length"]))
        logs = self._model.evaluate(
            training_dataset(batches, **self._shape),
            steps=math.ceil(rows / self._shape["batch_size"]),
            return_dict=True,
            verbose=0,
        )
        values = {f"val_{name}": value for name, value in logs.items()}
        return {**values, "val_perplexity": math.exp(min(logs["loss"], 700.0))}

    @property
    def _pad_id(self):
        return self._model.preprocessor.tokenizer.pad_token_id


def _digest(examples: StoredExamples):
    """Number and check sum of examples, as JSON."""
    checksum = zlib.crc32(examples.lengths.tobytes(), examples.checksum)
    return {"number": len(examples), "crc32": checksum}
