"""Comparisons of runs made without a model, against numbers worked out by hand."""

import json
import statistics

import pytest
from matplotlib import image

from star_keras.outer_loop.comparison import group_runs, read_run, write_comparison
from star_keras.outer_loop.evaluation import evaluate, save_evaluation
from star_keras.outer_loop.problem_texts import write_problem_texts
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.storage.command_log import read_commands, record_command
from star_keras.storage.run_directory import RunDirectory
from star_keras.testing import Doubling, ScriptedSampler


def make_run(path, accuracies, tokens=100, seed=0, task=None, **groups):
    """A run with an accuracy for each iteration, from 0; its path as a text.

    Each iteration samples `tokens`, a tenth as many with a hint, and trains on twice as
    many.
    """
    task = task or Doubling()
    config = {
        "run": {"seed": seed, "n_eval_samples": None, "skip_eval": False},
        "sampling": {"temperature": 0.0},
        "task": {"task": task.name},
        "model": {"base_weights_crc32": 7},
        "arguments": {"training_sampler": {"seed": seed}},
    }
    for name, values in groups.items():
        config[name] = config[name] | values
    run = RunDirectory(path)
    run.open(config)
    for iteration, accuracy in enumerate(accuracies):
        if iteration:
            run.finish(iteration, "begin", {})
            run.finish(iteration, "sample", {"sampled_tokens": tokens})
            run.finish(iteration, "rationalize", {"hinted_tokens": tokens // 10})
            run.finish(iteration, "select", {})
            metrics = {"trained_tokens": 2 * tokens, "sampling_seconds": 60.0}
            run.finish(iteration, "pack", metrics)
            run.finish(iteration, "train", {"training_seconds": 30.0})
        if accuracy is not None:
            metrics = {"eval_accuracy": accuracy, "eval_seconds": 10.0}
            run.finish(iteration, "evaluate", metrics)
    run.close()
    problems = {split: task.problems(split) for split in ("train", "eval")}
    write_problem_texts(run.path, problems, PromptBuilder(task), hinted=True)
    return str(path)


def rows(table):
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_means_and_spreads_at_the_fewest_tokens(tmp_path):
    paths = [
        make_run(tmp_path / "star_0", [0.1, 0.5, 0.7]),
        make_run(tmp_path / "star_seed1", [0.1, 0.3, 0.6], seed=1),
        make_run(tmp_path / "rft_0", [0.1, 0.4], 150, sampling={"temperature": 1.0}),
    ]
    record_command(paths[0], ["experiments.star", "--seed=0", "--note=a|b"])
    table = write_comparison(paths, tmp_path / "out")
    assert (tmp_path / "out" / "comparison.md").read_text() == table
    title, _, star, rft, *commands = rows(table)
    # An iteration of star has 100 + 10 + 200 tokens, the one of rft 150 + 15 + 300.
    assert title[3] == "accuracy at 465 tokens"
    spreads = [100 * statistics.stdev(x) for x in ([0.5, 0.3], [0.7, 0.6])]
    assert star == [
        *("star", "0, 1", "2", f"40.0% ± {spreads[0]:.1f}"),
        *(f"65.0% ± {spreads[1]:.1f}", "220", "400", "3 min 30 s"),
    ]
    assert rft == ["rft", "0", "1", "40.0%", "40.0%", "165", "300", "1 min 50 s"]
    assert commands[2][0] == paths[0]
    assert r"--note=a\|b" in table.replace("'", "")
    plot = image.imread(tmp_path / "out" / "comparison.png")
    colors = {tuple(x) for x in (plot[..., :3].reshape(-1, 3) * 255).round()}
    assert {(31, 119, 180), (255, 127, 14)} <= colors  # the two methods


def test_the_budget_can_be_chosen(tmp_path):
    # 310 tokens an iteration; the second run ends at 93.
    paths = [
        make_run(tmp_path / "star_0", [0.1, 0.5, 0.7]),
        make_run(tmp_path / "rft_0", [0.1, 0.4], 30, sampling={"temperature": 1.0}),
    ]
    for tokens, expected in ((92, (10, 10)), (93, (10, 40)), (620, (70, 40))):
        title, _, *lines = rows(write_comparison(paths, tmp_path / "out", tokens))
        assert title[3] == f"accuracy at {tokens} tokens"
        assert [line[3] for line in lines[:2]] == [f"{x}.0%" for x in expected]


def make_evaluation(path, task=None, num_samples=3, **metrics):
    """A directory of `save_evaluation` with completions that are all right."""
    task = task or Doubling()
    problems, prompts = task.problems("eval"), PromptBuilder(task)
    sampler = ScriptedSampler(lambda request: " The answer is 200.")
    found, samples = evaluate(prompts, problems, sampler, num_samples=num_samples)
    save_evaluation(path, found | metrics, samples)
    return str(path)


def test_evaluations_are_a_table_of_their_own(tmp_path):
    run = make_run(tmp_path / "star_0", [0.1, 0.5])
    ranked = make_evaluation(tmp_path / "ranked", **{"best@2": 0.3, "best@3": 0.25})
    plain = make_evaluation(tmp_path / "plain", num_samples=1)
    table = write_comparison([run], tmp_path / "out", evaluations=[ranked, plain])
    # One of six problems has the answer 200.
    assert rows(table)[-2:] == [
        [ranked, "3", "16.7%", "16.7%", "16.7%", "25.0%"],
        [plain, "1", "16.7%", "", "", ""],
    ]
    assert table.startswith(write_comparison([run], tmp_path / "out"))
    other = make_evaluation(tmp_path / "other", Doubling(held_out=3))
    for path, message in ((other, "has 3 problems"), (run, "metrics.json and comp")):
        with pytest.raises(ValueError, match=f"`evaluations`.*{message}") as error:
            write_comparison([run], tmp_path / "out", evaluations=[path])
        assert path in str(error.value)


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    first = make_run(tmp_path / "star_0", [0.1, 0.5])

    def refused(message, *args, **kwargs):
        name = kwargs.pop("name", "other")
        path = make_run(tmp_path / message.replace(" ", "_") / name, *args, **kwargs)
        with pytest.raises(ValueError, match=message) as error:
            group_runs([first, path])
        assert path in str(error.value)

    refused("is under way: iteration 2", [0.1, 0.5, None])
    refused("was not evaluated", [None, None])
    refused("has not finished an iteration", [0.1])
    refused("differ in their held-out", [0.1, 0.5], task=Doubling(held_out=3))
    base = {"base_weights_crc32": 8}
    refused("differ in their base model", [0.1, 0.5], model=base)
    refused("differ in their n_eval", [0.1, 0.5], run={"n_eval_samples": 3})
    warm = {"temperature": 0.5}
    refused(
        "other values of sampling.temperature",
        [0.1, 0.5],
        seed=1,
        name="star_1",
        sampling=warm,
    )
    refused("the seed 0 of another", [0.1, 0.5], name="star_0")
    refused("2 iterations instead", [0.1, 0.5, 0.6], seed=1, name="star_1")
    with pytest.raises(ValueError, match="directory of a run"):
        group_runs([tmp_path])


def test_damage_and_runs_of_older_versions_are_named(tmp_path):
    path = make_run(tmp_path / "run", [0.1, 0.5])
    manifest = tmp_path / "run" / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        line.pop("trained_tokens", None)
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="did not count tokens"):
        read_run(path)
    manifest.write_text("{}\n")
    with pytest.raises(ValueError, match=r"manifest\.jsonl"):
        read_run(path)
    (tmp_path / "run" / "problems.jsonl").unlink()
    with pytest.raises(ValueError, match=r"problems\.jsonl is missing"):
        read_run(path)


def test_a_command_is_recorded_once_in_a_row(tmp_path):
    for words in (["a", "b c"], ["a", "b c"], ["a"], ["a", "b c"]):
        record_command(tmp_path, words)
    found = read_commands(tmp_path)
    assert [line["command"] for line in found] == ["a 'b c'", "a", "a 'b c'"]
    assert all(line["version"] for line in found)
    commit = found[0]["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
