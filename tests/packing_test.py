import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_keras.packing import (
    TrainingExample,
    make_row,
    pack,
    tokenize_examples,
    training_batches,
    training_dataset,
)


def example(prompt, response, weight=1.0):
    return TrainingExample(
        prompt_ids=np.array(prompt, "int32"),
        response_ids=np.array(response, "int32"),
        weight=weight,
    )


def test_row_weighs_exactly_the_response_tokens():
    row = make_row([example([11, 12], [13, 14]), example([15], [16], 0.5)], 6, 0)
    x, y, sample_weight = row
    assert x["token_ids"].tolist() == [11, 12, 13, 15, 0, 0]
    assert x["padding_mask"].tolist() == [1, 1, 1, 1, 0, 0]
    assert x["segment_ids"].tolist() == [1, 1, 1, 2, 0, 0]
    assert x["positions"].tolist() == [0, 1, 2, 0, 0, 0]
    assert y.tolist() == [12, 13, 14, 16, 0, 0]
    assert sample_weight.tolist() == [0, 1, 1, 0.5, 0, 0]


@given(st.lists(st.integers(1, 40), max_size=60))
def test_packing_loses_nothing_and_overfills_nothing(lengths):
    rows = pack(lengths, 40)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 40 for row in rows)
    # No two rows would fit into one.
    free = sorted(40 - sum(lengths[i] for i in row) for row in rows)
    assert len(rows) < 2 or free[-1] + free[-2] < 40


def test_example_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="row_length=4.*one of 5"):
        pack([3, 5], 4)


def batches(examples, count, **kwargs):
    arguments = {"batch_size": 2, "row_length": 8, "pad_id": 0, "seed": (0, 1)}
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


def test_unpacked_rows_have_no_segments():
    ((x, _, _),) = batches([example([1], [2])], 1, packed=False)
    assert set(x) == {"token_ids", "padding_mask"}


def test_without_examples_batches_weigh_nothing():
    for packed in (True, False):
        for x, _, sample_weight in batches([], 2, packed=packed):
            assert x["token_ids"].shape == (2, 8)
            assert not sample_weight.any()


def test_same_seed_same_stream():
    examples = [example([i], [i + 1]) for i in range(1, 20)]

    def tokens(seed):
        return np.stack([x["token_ids"] for x, _, _ in batches(examples, 6, seed=seed)])

    assert np.array_equal(tokens((1, 2)), tokens((1, 2)))
    assert not np.array_equal(tokens((1, 2)), tokens((1, 3)))


def test_tokenizing_keeps_the_boundary_and_adds_the_end(make_model):
    preprocessor = make_model().preprocessor
    (e,) = tokenize_examples(preprocessor, [("Q: a\nA:", " b", 0.5)])
    tokenizer = preprocessor.tokenizer
    assert tokenizer.detokenize(e.prompt_ids.tolist()) == "Q: a\nA:"
    assert e.response_ids[-1] == tokenizer.end_token_id
    assert tokenizer.detokenize(e.response_ids[:-1].tolist()) == " b"
    assert e.weight == 0.5


def test_start_token_is_added_where_the_preprocessor_wants_one(make_model):
    preprocessor = make_model().preprocessor
    preprocessor.add_start_token = True
    (e,) = tokenize_examples(preprocessor, [("Q", " b", 1.0)])
    assert e.prompt_ids[0] == preprocessor.tokenizer.start_token_id
    assert len(e.prompt_ids) == 2


def test_the_end_of_a_dataset_waits_for_no_autotuning():
    dataset = training_dataset(lambda: iter(()), batch_size=1, row_length=8)
    assert dataset.options().autotune.enabled is False
