import itertools

import numpy as np
import pytest

from star_keras.testing import tiny_gpt_j
from star_keras.training.dataset import training_batches
from star_keras.training.examples import tokenize_examples
from star_keras.training.stored_examples import (
    StoredExamples,
    example_lengths,
    tokenize_stream,
)

TEXTS = [
    (f"Q: {'ab' * (i // 3)}\nA:", f" {'qz' * (i % 7)}{i}", 1 / (1 + i % 3))
    for i in range(2_500)
]


def batches(examples):
    stream = training_batches(
        examples, batch_size=4, sequence_length=2_048, pad_id=0, seed=[3, 1]
    )
    return list(itertools.islice(stream, 40))


def test_stored_examples_are_those_of_tokenize_examples():
    preprocessor = tiny_gpt_j(num_layers=1, hidden_dim=16).preprocessor
    expected = tokenize_examples(preprocessor, TEXTS)
    stored = StoredExamples(tokenize_stream(preprocessor, iter(TEXTS)))
    assert len(stored) == len(expected)
    assert example_lengths(stored) == example_lengths(expected)
    for found, example in zip(stored, expected, strict=True):
        np.testing.assert_array_equal(found.prompt_ids, example.prompt_ids)
        np.testing.assert_array_equal(found.response_ids, example.response_ids)
        assert found.prompt_ids.dtype == found.response_ids.dtype == "int32"
        assert (found.weight, len(found)) == (example.weight, len(example))
    assert [e.weight for e in stored[1:3]] == [e.weight for e in expected[1:3]]


def test_batches_of_stored_examples_are_the_same_to_the_byte():
    preprocessor = tiny_gpt_j(num_layers=1, hidden_dim=16).preprocessor
    texts = TEXTS[:300]
    pairs = zip(
        batches(StoredExamples(tokenize_stream(preprocessor, texts))),
        batches(tokenize_examples(preprocessor, texts)),
        strict=True,
    )
    for (x, *found), (other_x, *expected) in pairs:
        for a, b in zip(
            [*x.values(), *found], [*other_x.values(), *expected], strict=True
        ):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_no_examples_are_no_file():
    stored = StoredExamples([])
    assert (len(stored), example_lengths(stored)) == (0, [])


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf"), "1", None])
def test_a_weight_that_is_none_is_named_by_its_place_in_the_stream(weight):
    preprocessor = tiny_gpt_j(num_layers=1, hidden_dim=16).preprocessor
    texts = [*TEXTS[:1_030], ("Q", " a", weight), *TEXTS[:3]]
    message = r"`texts\[1030\].weight`. Expected a finite number of at least 0"
    with pytest.raises(ValueError, match=message):
        list(tokenize_stream(preprocessor, iter(texts)))
    with pytest.raises(ValueError, match=r"`texts\[1\].weight`"):
        tokenize_examples(preprocessor, texts[1_029:])


def test_what_is_no_example_is_named():
    with pytest.raises(ValueError, match=r"`examples\[0\]`.*a `TrainingExample`.*=1"):
        StoredExamples([1, 2])
