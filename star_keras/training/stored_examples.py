"""Tokenized training examples in a temporary file, for sets larger than memory."""

import array
import itertools
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from star_keras.training.examples import (
    TrainingExample,
    checked_texts,
    tokenize_examples,
)
from star_keras.utils.errors import invalid

# Texts that are tokenized together.
_BATCH = 1024


def tokenize_stream(
    preprocessor, texts: Iterable[tuple[str, str, float]], **kwargs
) -> Iterator[TrainingExample]:
    """The examples of `tokenize_examples`, in batches, for texts larger than memory.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        texts: Triples `(prompt, response, weight)`; they are read once.
        **kwargs: Further arguments of `tokenize_examples`.

    Raises:
        ValueError: see `tokenize_examples`.
    """
    texts = checked_texts(texts)
    while batch := list(itertools.islice(texts, _BATCH)):
        yield from tokenize_examples(preprocessor, batch, **kwargs)


class StoredExamples(Sequence[TrainingExample]):
    """Training examples whose token ids are in a temporary file.

    The file is mapped into memory, and gone with the object. A prompt that is the
    array of the one before it is stored once. Memory holds 40 bytes an example.

    Args:
        examples: The examples, e.g. of `tokenize_stream`; they are read once.

    Attributes:
        lengths: int64 array `(len,)`, the length of each example.
        weights: float64 array `(len,)`, the weight of each example.
        checksum: CRC-32 of all token ids.
        references: float64 array `(len,)`, see `TrainingExample.reference`; zeros at
            first.

    Raises:
        ValueError: if one is no `TrainingExample`.
        OSError: if the temporary file cannot be written.
    """

    def __init__(self, examples: Iterable[TrainingExample]):
        # Of each example where its prompt and its response are.
        places, weights = array.array("q"), array.array("d")
        with tempfile.TemporaryFile() as file:
            end, last = 0, (0, 0, None)
            self.checksum = 0

            def write(ids):
                nonlocal end
                start, end = end, end + len(ids)
                content = ids.tobytes()
                file.write(content)
                self.checksum = zlib.crc32(content, self.checksum)
                return start, end

            for example in examples:
                if not isinstance(example, TrainingExample):
                    name = f"examples[{len(weights)}]"
                    remedy = "Make them of texts with `tokenize_stream`."
                    raise invalid(name, "a `TrainingExample`", example, remedy)
                if example.prompt_ids is not last[2]:
                    last = *write(example.prompt_ids), example.prompt_ids
                places.extend((*last[:2], *write(example.response_ids)))
                weights.append(example.weight)
            file.flush()
            self._places = np.asarray(places).reshape(-1, 4)
            self.weights = np.asarray(weights)
            self.references = np.zeros(len(weights))
            self._ids = np.zeros(0, "int32")
            if end:
                self._ids = np.asarray(np.memmap(file, "int32", mode="r"))
        self._measure()

    def _measure(self):
        sizes = self._places[:, 1::2] - self._places[:, ::2]
        self.lengths = sizes.sum(axis=1) - 1

    def reorder(self, order: Sequence[int]):
        """Put the examples into another order, or leave some out.

        Args:
            order: Their indices now.
        """
        order = np.asarray(order, "int64")
        self._places, self.weights = self._places[order], self.weights[order]
        self.references = self.references[order]
        self._measure()

    def __len__(self):
        return len(self.weights)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        prompt, prompt_end, response, response_end = self._places[index]
        return TrainingExample(
            prompt_ids=self._ids[prompt:prompt_end],
            response_ids=self._ids[response:response_end],
            weight=float(self.weights[index]),
            reference=float(self.references[index]),
        )


def example_lengths(examples: Sequence[TrainingExample]) -> list[int]:
    """The length of each example."""
    if isinstance(examples, StoredExamples):
        return examples.lengths.tolist()
    return [len(example) for example in examples]
