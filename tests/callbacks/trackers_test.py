"""What TensorBoard and trackio are given."""

import keras
import pytest
import tensorflow as tf

from star_keras.callbacks import SampleTable
from tests.callbacks.conftest import scripted


def script(request):
    number = int(request.name.removeprefix("double-"))
    answer = 2 * number if number % 2 else 7
    return f" <b>a|b</b>\n\n`{number}`. The answer is {answer}."


def events(directory):
    """Values of the summaries below a directory: `(step, tag) -> value`."""
    found = {}
    for path in directory.rglob("events.out.*"):
        for content in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(content)
            for value in event.summary.value:
                found[event.step, value.tag] = tf.make_ndarray(value.tensor)
    return found


def test_tensorboard_gets_numbers_and_tables_of_each_iteration(make_star, tmp_path):
    pytest.importorskip("tensorboard")
    star = make_star(sampler=scripted(script))
    board = keras.callbacks.TensorBoard(tmp_path / "events")
    star.fit(2, [board, SampleTable(star, tmp_path / "events", rows=3)], verbose=0)
    found = events(tmp_path / "events")
    for iteration in (1, 2):
        number = found[iteration - 1, "epoch_eval_accuracy"]
        assert number == pytest.approx(star.metrics[iteration]["eval_accuracy"])
        for kind in ("rationale", "rationalization", "evaluation"):
            samples = star.run.samples.load(iteration, kind)
            header, _, *rows = (
                found[iteration, f"samples/{kind}"].item().decode().split("\n")
            )
            assert header == "| problem | verdict | answer | completion |"
            assert len(rows) == min(3, len(samples))
            for row, sample in zip(rows, samples, strict=False):
                number = sample.problem.removeprefix("double-")
                assert f"| `{sample.problem}` | `{sample.verdict}` | " in row
                # One cell, in which no markup of the model is any.
                assert f"| `<b>a\\|b</b>` `'{number}'. The answer is" in row


def test_trackio_gets_the_logs_of_each_iteration(make_star, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    from trackio import sqlite_storage

    trackio.init(project="star", name="sums", embed=False, auto_log_cpu=False)
    log = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: trackio.log(logs, step=epoch + 1)
    )
    star = make_star()
    star.fit(2, [log], verbose=0)
    trackio.finish()
    lines = sqlite_storage.SQLiteStorage.get_logs("star", "sums")
    assert [line["step"] for line in lines] == [1, 2]
    for line, metrics in zip(lines, star.metrics[1:], strict=True):
        for name in ("loss", "eval_accuracy", "eval_accuracy/odd"):
            assert line[name] == pytest.approx(metrics[name])
