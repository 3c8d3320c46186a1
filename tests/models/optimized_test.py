"""The other tests compile without most optimizations; a selection runs with them."""

import pytest

from tests import forks

SELECTION = (
    "training/training_step_test.py::"
    "test_packed_rows_leave_the_same_weights_as_the_rows_unpacked",
    "training/training_step_test.py::test_accumulated_parts_equal_the_whole_batch[8]",
    "models/attention_test.py::"
    "test_blocks_of_queries_have_outputs_and_gradients_of_all_at_once[300]",
    "models/conformance_test.py::"
    "test_packed_logits_equal_those_of_each_sequence_alone[gemma2]",
    "models/conformance_test.py::test_continuous_sampling_equals_a_greedy_loop[qwen]",
    "models/gpt_j/gpt_j_transformers_test.py::"
    "test_logits_equal_those_of_transformers[padded]",
)


@pytest.mark.slow
def test_equalities_hold_with_the_optimizations_of_xla():
    tests = [f"tests/{test}" for test in SELECTION]
    done = forks.run("models_optimized", *tests, environment={"XLA_FLAGS": ""})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{len(SELECTION)} passed" in done.stdout
