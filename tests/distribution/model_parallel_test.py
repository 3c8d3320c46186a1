import json
import math

import pytest

from star_keras.testing import FAMILIES
from tests.conftest import run_on_eight_devices
from tests.distribution.layouts_test import expected_axes

# Mesh, `zero`, and whether to train in an outer loop. (Outer loops over more meshes
# are in tests/outer_loop/mesh_test.py.)
RUNS = {
    "gpt_j": [
        (None, False, False),
        ("batch:2,model:4", False, False),
        ("batch:8", False, False),
        ("model:8", False, False),
        (None, False, True),
        ("batch:8", True, True),
    ],
    **{
        family: [(None, False, False), ("batch:2,model:4", True, False)]
        for family in FAMILIES
        if family != "gpt_j"
    },
}
CASES = [(family, *run) for family, runs in RUNS.items() for run in runs if run[0]]
SAMPLED = ("gpt_j", "llama", "gemma2")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of `distribution_families` for each of the runs."""
    return run_on_eight_devices(
        "distribution_families", json.dumps(RUNS), tmp_path_factory.mktemp("runs")
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in SAMPLED])
def test_gradients_of_every_family_on_a_mesh_are_those_of_one_device(found, family):
    assert found[f"{family} batch:2,model:4 True False"]["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "mesh", "zero", "outer_loop"), [c for c in CASES if c[0] in SAMPLED]
)
def test_split_model_trains_and_samples_like_the_whole_one(
    found, family, mesh, zero, outer_loop
):
    split = found[f"{family} {mesh} {zero} {outer_loop}"]
    whole = found[f"{family} None False {outer_loop}"]
    assert len(set(whole["texts"])) > 6
    assert split["texts"] == whole["texts"]
    # A quotient of two others, NaN for a negative estimate.
    logs = {k: v for k, v in whole["logs"].items() if k != "gradient_noise_scale"}
    assert logs.keys() <= split["logs"].keys()
    for name, value in logs.items():
        assert split["logs"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    if outer_loop:
        assert "iteration_0001/evaluation.jsonl" in whole["files"]
        assert split["files"] == whole["files"]
    assert split["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "zero", "parts"),
    (
        ("batch:8", False, 1),
        ("batch:2,model:4", False, 4),
        ("model:8", False, 8),
        ("batch:8", True, 8),  # in an outer loop
    ),
)
def test_each_device_holds_its_share_of_weights_and_moments(found, mesh, zero, parts):
    total, most = found[f"gpt_j {mesh} {zero} {zero}"]["bytes"]
    assert 1 <= most / (total / parts) < 1.15  # vectors are not split


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ("batch:2,model:4", "model:8"))
def test_every_variable_lies_on_the_devices_as_expected_after_training(found, mesh):
    split = found[f"gpt_j {mesh} False False"]
    assert len(split["axes"]) == 3 * (10 + 5) + 2
    for path, axes in split["axes"].items():
        expected = expected_axes(path)
        while expected and expected[-1] is None:
            expected = expected[:-1]
        while axes and axes[-1] is None:
            axes = axes[:-1]
        assert axes == expected, path


@pytest.mark.slow
def test_zero_gathers_weights_and_not_the_rows(found):
    weights = ["64,8,8"] * 3 + ["8,8,64", "64,256", "256,64"]
    gathered = found["collectives"]["all-gather"]
    assert not [w for w in set(weights) if gathered.count(w) < weights.count(w)]
    # Of the 16 rows, or their 384 tokens, a device gathers the token ids alone, for
    # the embedding, which is split by its width.
    rows = [s for s in gathered if s.split(",")[0] in ("16", "384")]
    assert all(math.prod(map(int, s.split(","))) <= 384 for s in rows)
    # On CPU a gradient is summed whole and then cut; TPUs scatter the sums.
    collectives = found["collectives"]
    reduced = collectives["all-reduce"] + collectives["reduce-scatter"]
    assert not [s for s in reduced if s.split(",")[0] in ("16", "384")]


# === Slices ===

SLICE_CASES = [(False, 1), (True, 2)]  # `zero`, parts of gradient accumulation


@pytest.fixture(scope="module")
def slices():
    """Results of `distribution_slices`."""
    return run_on_eight_devices("distribution_slices", json.dumps(SLICE_CASES))


@pytest.mark.slow
@pytest.mark.parametrize(("zero", "parts"), SLICE_CASES)
def test_model_over_two_slices_trains_and_samples_like_the_whole_one(
    slices, zero, parts
):
    found = slices[f"{zero} {parts}"]
    split, whole = found["losses"]
    assert split == pytest.approx(whole, rel=1e-5)
    # The gradient noise would need the gradients of each part.
    assert found["logs"] == ["gradient_norm", "loss", "token_utilization"]
    assert found["largest"] > 1e-3
    assert found["difference"] < 1e-5 * max(1, found["largest"])
    split, whole = found["texts"]
    assert len(set(whole)) > 3
    assert split == whole


@pytest.mark.slow
@pytest.mark.parametrize(("zero", "parts"), SLICE_CASES)
def test_gradients_alone_go_between_slices_and_once(slices, zero, parts):
    found = slices[f"{zero} {parts}"]
    assert found["within"] > 10
    assert {kind for kind, *_ in found["between"]} == {"all-reduce"}
    # Sums of the loss as well. With `zero` the embedding's gradient is summed whole.
    share, whole = found["gradients"]
    assert share <= sum(size for _, size, _ in found["between"]) < whole + 100
