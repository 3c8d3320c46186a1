"""Checkpoints through the command line of experiments.convert."""

import json
import re

import pytest

from star_keras.models import GPTJCausalLM
from tests.conftest import ROOT, run_experiment


def convert(*arguments):
    return run_experiment("convert", *arguments)


def sums(result):
    assert result.returncode == 0, result.stderr
    found = re.search(r"logits: sum (\S+), sum of absolutes (\S+)", result.stdout)
    return [float(number) for number in found.groups()]


@pytest.mark.slow
def test_preset_to_hugging_face_to_mesh_and_back_keeps_the_logits(make_model, tmp_path):
    model = make_model(
        vocabulary_size=258, hidden_dim=16, intermediate_dim=64, rotary_dim=4
    )
    model.save_to_preset(str(tmp_path / "preset"))
    config = {
        "layers": 2,
        "d_model": 16,
        "n_heads": 2,
        "n_vocab": 258,
        "pe_rotary_dims": 4,
        "seq": 256,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    first = sums(
        convert(
            f"--source={tmp_path / 'preset'}",
            "--to=hugging_face",
            f"--output={tmp_path / 'hf'}",
        )
    )
    second = sums(
        convert(
            f"--source={tmp_path / 'hf'}",
            "--to=mesh_transformer",
            "--shards=2",
            f"--output={tmp_path / 'mesh'}",
        )
    )
    assert second == pytest.approx(first, rel=1e-5)
    third = sums(
        convert(
            f"--source={tmp_path / 'mesh'}",
            f"--mesh_config={tmp_path / 'config.json'}",
            f"--tokenizer={tmp_path / 'hf'}",
            "--to=preset",
            f"--output={tmp_path / 'again'}",
        )
    )
    # All weights, rounded to bfloat16: other ones, even of the same size on
    # average, would move the signed sum by much more.
    assert third == pytest.approx(first, abs=1e-4 * first[1])
    again = GPTJCausalLM.from_preset(str(tmp_path / "again"))
    again.compile(sampler="greedy")
    assert again.generate("12 + 3", max_length=10).startswith("12 + 3")


@pytest.mark.slow
def test_other_hugging_face_directories_are_converted_and_back(tmp_path):
    source = ROOT / "tests" / "fixtures" / "hugging_face" / "qwen3"
    preset, back = tmp_path / "preset", tmp_path / "back"
    first = sums(convert(f"--source={source}", "--to=preset", f"--output={preset}"))
    arguments = ["--to=hugging_face", f"--output={back}"]
    assert sums(convert(f"--source={preset}", *arguments)) == first
    fields = [json.loads((path / "config.json").read_text()) for path in (source, back)]
    for name in ("rms_norm_eps", "head_dim", "tie_word_embeddings"):
        assert fields[0][name] == fields[1][name]
    result = convert(f"--source={back}", "--to=mesh_transformer", f"--output={preset}2")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "Expected a GPT-J, the only model of the format" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards=8"], "`shards`. Expected `None` with to='preset'"),
        (["--mesh_config=x"], "`mesh_config`. Expected `None` with source='arith"),
        (["--tokenizer=x"], "`tokenizer`. Expected `None` with source='arithmetic_"),
        (["--dtype=float99"], "--dtype=float99: value should be one of <float32"),
    ],
)
def test_flags_that_a_conversion_does_not_use_are_refused(tmp_path, arguments, message):
    output = tmp_path / "out"
    result = convert("--source=arithmetic_base", f"--output={output}", *arguments)
    assert result.returncode == 1 and message in result.stderr
    assert not output.exists()


def test_a_source_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    result = convert(f"--source={tmp_path}", f"--output={tmp_path}", "--dtype=float16")
    assert result.returncode == 1
    assert "`output`. Expected a new or an empty directory" in result.stderr
    assert (tmp_path / "config.json").read_text() == "{}"


def test_what_is_no_checkpoint_is_named(tmp_path):
    result = convert(
        f"--source={tmp_path}", "--to=preset", f"--output={tmp_path / 'out'}"
    )
    assert result.returncode != 0
    assert f"--source={tmp_path} is no checkpoint" in result.stderr + result.stdout
