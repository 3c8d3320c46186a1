import gc
import itertools
import weakref

import numpy as np
import pytest

from star_keras.training.dataset import (
    count_trained_tokens,
    evaluation_batches,
    feed_token_ids,
    training_batches,
    training_dataset,
)
from star_keras.training.examples import TrainingExample


def example(prompt, response):
    return TrainingExample(
        prompt_ids=np.array(prompt, "int32"),
        response_ids=np.array(response, "int32"),
    )


def batches(examples, count, **kwargs):
    arguments = {"batch_size": 2, "sequence_length": 8, "pad_id": 0, "seed": (0, 1)}
    stream = training_batches(examples, **{**arguments, **kwargs})
    return list(itertools.islice(stream, count))


@pytest.mark.parametrize("packed", [True, False])
def test_every_example_comes_once_a_pass(packed):
    examples = [example([i], [100 + i, 1]) for i in range(1, 8)]
    # Seven rows of one example, or (two tokens each) two rows of four.
    rows_a_pass = 2 if packed else 7
    seen = [
        int(target)
        for _, y, _ in batches(examples, 7, packed=packed)
        for row in y
        for target in row
        if target > 100
    ]
    per_pass = len(examples)
    passes = 14 // rows_a_pass
    assert len(seen) == passes * per_pass
    for start in range(0, len(seen), per_pass):
        assert sorted(seen[start : start + per_pass]) == list(range(101, 108))


@pytest.mark.parametrize("packed", [True, False])
def test_an_example_longer_than_a_row_is_named_whatever_the_order(packed):
    examples = [example([1], [2, 1])] * 9 + [example([1, 2, 3], [4] * 7)]
    with pytest.raises(ValueError, match=r"=8 tokens. Received: examples\[9\] of 9 to"):
        batches(examples, 1, packed=packed)
    with pytest.raises(ValueError, match=r"Received: pairs\[4\] of 11 tokens"):
        batches(examples, 1, paired=True)


def test_unpacked_rows_have_no_segments():
    ((x, _, _),) = batches([example([1], [2])], 1, packed=False)
    assert set(x) == {"token_ids", "padding_mask"}


def test_without_examples_batches_weigh_nothing():
    for packed in (True, False):
        for x, _, sample_weight in batches([], 2, packed=packed):
            assert x["token_ids"].shape == (2, 8)
            assert not sample_weight.any()


@pytest.mark.parametrize("packed", [True, False])
def test_a_stream_can_start_later(packed):
    examples = [example([i], [i + 1] * (i % 5 + 1)) for i in range(1, 20)]
    whole = batches(examples, 30, packed=packed)
    rest = batches(examples, 17, packed=packed, start=13)
    for (x, *others), (later_x, *later) in zip(whole[13:], rest, strict=True):
        for a, b in zip(
            [*x.values(), *others], [*later_x.values(), *later], strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_evaluation_has_every_example_once_and_empty_rows_behind():
    examples = [example([i], [100 + i] * 4) for i in range(1, 6)]
    found = list(
        evaluation_batches(examples, batch_size=2, sequence_length=8, pad_id=0)
    )
    assert [y.shape for _, y, _ in found] == [(2, 8)] * 2
    targets = np.concatenate([y[weight > 0] for _, y, weight in found])
    assert sorted(targets) == [100 + i for i in range(1, 6) for _ in range(4)]
    assert not found[-1][2][-1].any()


def test_same_seed_same_stream():
    examples = [example([i], [i + 1]) for i in range(1, 20)]

    def tokens(seed):
        return np.stack([x["token_ids"] for x, _, _ in batches(examples, 6, seed=seed)])

    assert np.array_equal(tokens((1, 2)), tokens((1, 2)))
    assert not np.array_equal(tokens((1, 2)), tokens((1, 3)))


def test_the_end_of_a_dataset_waits_for_no_autotuning():
    dataset = training_dataset(lambda **_: iter(()), batch_size=1, sequence_length=8)
    assert dataset.options().autotune.enabled is False


def test_token_ids_pass_by_the_preprocessor_with_their_weights(make_model):
    model = make_model()
    feed_token_ids(model)
    x = {"token_ids": np.ones((2, 8)), "padding_mask": np.ones((2, 8))}
    y, sample_weight = np.ones((2, 8)), np.full((2, 8), 0.5)
    assert model.preprocess_samples(x, y, sample_weight) == (x, y, sample_weight)
    x, _, _ = model.preprocess_samples(["text is still tokenized"])
    assert x["token_ids"].shape == (1, 64)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_counted_tokens_are_those_of_the_batches(packed, steps):
    examples = [example([i] * (i % 3 + 1), [100 + i, 1]) for i in range(1, 8)]
    found = batches(examples, steps, packed=packed, batch_size=3)
    rows = {"batch_size": 3, "sequence_length": 8, "seed": (0, 1), "packed": packed}
    expected = sum(int(x["padding_mask"].sum()) for x, _, _ in found)
    assert count_trained_tokens(examples, steps, **rows) == expected
    assert count_trained_tokens([], steps, **rows) == 0


def test_a_dataset_that_is_gone_keeps_nothing_in_memory():
    class Batches:
        def __call__(self, batch_size, sequence_length):
            row = [example([1], [2, 3])]
            return batches(row, 2, batch_size=batch_size, packed=True)

    source = Batches()
    reference = weakref.ref(source)
    iterator = iter(training_dataset(source, batch_size=1, sequence_length=8))
    del source
    gc.collect()
    next(iterator)  # an iterator keeps its dataset
    del iterator
    gc.collect()
    assert reference() is None
