"""Samples and scores over eight devices: see `tests/programs/sampling_on_a_mesh.py`."""

import numpy as np
import pytest

from tests.conftest import run_on_eight_devices

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    return run_on_eight_devices("sampling_on_a_mesh")


def test_split_model_writes_the_texts_of_the_whole_one(found):
    assert found["split"]["texts"] == found["whole"]["texts"]
    assert found["in_rows"]["texts"] == found["whole"]["texts"]
    greedy, sampled = found["split"]["texts"]
    assert greedy != sampled
    # The prefix and one length of prompts; 8 slots, and 2 for the last samples; no
    # other layout appears later on.
    assert found["compilations"] == {
        "prefill": 2,
        "insert": 1,
        "decode": 2,
        "compact": 1,
    }


def test_split_model_scores_like_the_whole_one(found):
    np.testing.assert_allclose(
        found["split"]["log_likelihoods"], found["whole"]["log_likelihoods"], rtol=1e-5
    )


def test_prompts_are_prefilled_by_one_device_of_the_batch_axis_each(found):
    whole, split = found["prefill_flops"]
    # Split over the model axis alone it would be a fourth. Norms are not split there.
    assert whole / 8 <= split < 0.75 * whole / 4


def test_cache_is_split_over_slots_and_heads(found):
    assert found["cache"] == {
        "gpt_j": [[8, 4, 32, 8], [4, 1, 32, 8]],
        "gpt_j in rows": [[8, 2, 32, 16], [2, 1, 32, 16]],
        "gpt_neo_x": [[8, 4, 32, 8], [4, 1, 32, 8]],
        "pythia": [[8, 4, 32, 8], [4, 1, 32, 8]],
        "smollm3": [[8, 4, 32, 8], [4, 1, 32, 8]],
        "gemma3": [[8, 4, 32, 16], [4, 1, 32, 16]],
        "general_llama": [[8, 4, 32, 12], [4, 1, 32, 12]],
        # Four devices have two heads: all have both.
        "smollm3 of 2": [[8, 2, 32, 8], [4, 2, 32, 8]],
        "general_llama of 2": [[8, 2, 32, 12], [4, 2, 32, 12]],
    }


@pytest.mark.parametrize(("kind", "value"), [("sampler", 9), ("scorer", 3)])
def test_batch_size_must_divide_by_the_batch_axis(found, kind, value):
    assert "multiple of the 2 devices" in found[f"{kind}_error"]
    assert f"batch_size={value}" in found[f"{kind}_error"]
