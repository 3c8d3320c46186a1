import pytest

from tests.conftest import run_experiment


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ("1,2,x", "numbers of at least 1"),
        ("50,60", "three numbers"),
        ("1,2,100", "a sum of at least 104"),
    ],
)
def test_wrong_steps_are_named_before_anything_is_made(tmp_path, steps, rule):
    output = tmp_path / "preset"
    done = run_experiment("pretrain", f"--output={output}", f"--steps={steps}")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Invalid value for argument `steps`. Expected {rule}"
    )
    assert f"Received: steps='{steps}'." in done.stderr
    assert done.stdout == ""


def test_a_seed_that_numpy_refuses_is_named(tmp_path):
    output = tmp_path / "preset"
    done = run_experiment("pretrain", f"--output={output}", f"--seed={2**32}")
    assert done.returncode == 1
    assert "flag --seed=4294967296: " in done.stderr + done.stdout
