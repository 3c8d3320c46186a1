import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_keras.training.examples import TrainingExample
from star_keras.training.packing import make_row, pack


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
    with pytest.raises(ValueError, match=r"sequence_length=4.*examples\[1\] of 5 tok"):
        pack([3, 5], 4)
