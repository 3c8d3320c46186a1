"""Parameters in matrix products, counted by hand and by XLA."""

import jax
import numpy as np
import pytest

from star_keras.planning.arithmetic import matrix_parameters
from star_keras.testing import tiny_causal_lm

# Queries and outputs, keys and values of 2 of 4 heads, three matrices of the MLP, and
# two norms; the logits of 258 tokens.
BLOCK = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
HEAD = 32 * 258


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_counts_once_whether_tied_or_not(tied):
    model = tiny_causal_lm("llama3", num_layers=2, tie_word_embeddings=tied)
    assert matrix_parameters(model) == (2 * BLOCK, HEAD)
    # XLA's count of a forward pass, which has attention, norms and rotations too.
    rows, length = 4, 8

    def forward(trainable, other, token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": token_ids}
        return model.stateless_call(trainable, other, inputs)[0]

    lowered = jax.jit(forward).lower(
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
        np.ones((rows, length), "int32"),
    )
    counted = 2 * (2 * BLOCK + HEAD) * rows * length
    assert 1 < lowered.cost_analysis()["flops"] / counted < 1.1
