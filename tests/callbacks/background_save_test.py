"""The weights after an iteration, saved while the evaluation samples."""

import os
import signal
import threading

import orbax.checkpoint as ocp
import pytest

from star_keras.storage.manifest import PHASES
from star_keras.testing import ScriptedSampler
from star_keras.utils.json_lines import read_json_lines
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    fit,
    half_right,
    metrics,
    scripted,
)

# Prompts before the evaluation of iteration 1: an evaluation, 24 rationales, 12 hints.
_BEFORE = 6 + 24 + 12


class KillError(BaseException):
    """Ends a run as a kill does: nothing more is recorded."""


class SamplerOfEvaluation(ScriptedSampler):
    """Calls a function at each batch of the evaluation of iteration 1.

    Args:
        function: Called with the number of the batch, from 1.
    """

    def __init__(self, function):
        super().__init__(half_right, batch_size=2)
        self._function = function

    def sample(self, requests, *, stop=()):
        for batch in super().sample(requests, stop=stop):
            if _BEFORE < len(self.prompts) <= _BEFORE + 6:
                self._function((len(self.prompts) - _BEFORE) // 2)
            yield batch


@pytest.fixture
def weights_held(uncut, monkeypatch):
    """A save of weights ends, in the background, only when `release` is set."""
    uncut(2)  # made before
    release = threading.Event()
    finalize = ocp.StandardCheckpointHandler.finalize

    def held(self, directory):
        if "weights" in directory.parts:
            assert release.wait(60)
        finalize(self, directory)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", held)
    yield release
    release.set()


def phases(star):
    """The finished phases on disk."""
    lines = read_json_lines(star.run.manifest, set())
    return [(line["iteration"], line["phase"]) for line in lines]


def test_evaluation_samples_while_the_weights_are_saved(
    uncut, make_star, make_model, weights_held
):
    whole, whole_model = uncut(2)
    model, found = make_model(), []

    def look(number):
        weights = star.run.checkpoints.weights
        if number == 2:
            found.append((phases(star)[-1], weights.is_saving()))
            weights_held.set()
            weights.wait()
        if number == 3:
            found.append((phases(star)[-1], weights.names()))

    star = make_star("held", model, sampler=SamplerOfEvaluation(look))
    fit(star, 2)
    # The next batch after the save records the training.
    assert found == [((1, "pack"), True), ((1, "train"), ["iteration_0001"])]
    assert phases(star)[1:] == [(i, phase) for i in (1, 2) for phase in PHASES]
    lines = [line.get("files") for line in read_json_lines(star.run.manifest, set())]
    whole_lines = read_json_lines(whole.run.manifest, set())
    assert lines == [line.get("files") for line in whole_lines]
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


def test_the_end_of_an_evaluation_waits_for_the_weights(make_star, weights_held):
    def release_later(number):
        if number == 3:
            threading.Timer(1.0, weights_held.set).start()

    star = make_star(sampler=SamplerOfEvaluation(release_later))
    fit(star, 1)
    assert phases(star)[-2:] == [(1, "train"), (1, "evaluate")]
    assert star.run.checkpoints.weights.names() == ["iteration_0001"]


@pytest.mark.parametrize("moment", ["saving", "saved", "evaluated"])
def test_kill_before_the_note_of_the_weights_ends_the_same(
    uncut, make_star, make_model, monkeypatch, weights_held, moment
):
    """While they are saved, right after it, and after the last batch."""

    def kill(number):
        if (moment, number) == ("saving", 1):
            # The directory is locked until the save has ended.
            threading.Timer(0.5, weights_held.set).start()
            raise KillError
        if (moment, number) == ("saved", 1):
            weights_held.set()
            cut.run.checkpoints.weights.wait()
            raise KillError

    whole, whole_model = uncut(2)
    cut = make_star("cut", sampler=SamplerOfEvaluation(kill))
    if moment == "evaluated":
        finish = cut.run.finish

        def killed(iteration, phase, metrics):
            if (iteration, phase) == (1, "evaluate"):
                threading.Timer(0.5, weights_held.set).start()
                raise KillError
            finish(iteration, phase, metrics)

        monkeypatch.setattr(cut.run, "finish", killed)
    with pytest.raises(KillError):
        fit(cut, 2)
    assert phases(cut)[-1] == (1, "pack")
    assert not cut.run.checkpoints.weights.is_saving()

    model = make_model()
    star = make_star("cut", model)
    assert star.initial_epoch == 0
    fit(star, 2)
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)
    assert star.run.checkpoints.weights.names() == ["iteration_0002"]


def test_weights_that_cannot_be_written_end_the_run(
    uncut, make_star, make_model, monkeypatch
):
    whole, whole_model = uncut(2)
    batches, finalize = [], ocp.StandardCheckpointHandler.finalize

    def fails(self, directory):
        raise ValueError("No space left on device")

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", fails)
    cut = make_star("cut", sampler=SamplerOfEvaluation(batches.append))
    with pytest.raises(OSError, match="make room.*same command again.*/weights"):
        fit(cut, 2)
    assert batches
    assert phases(cut)[-1] == (1, "pack")
    assert cut.run.checkpoints.weights.names() == []

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", finalize)
    model = make_model()
    star = make_star("cut", model)
    fit(star, 2)
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


def test_weights_that_could_not_be_written_are_not_recorded_after_their_error(
    make_star, monkeypatch
):
    """Another call takes the error of the save; then the evaluation fails."""

    def fails(self, directory):
        raise ValueError("No space left on device")

    def end(number):
        with pytest.raises(OSError, match="make room"):
            star.run.checkpoints.weights.names()
        raise ValueError("no completion")

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", fails)
    star = make_star(sampler=SamplerOfEvaluation(end))
    with pytest.raises(OSError, match="of iteration 1 could not be written"):
        fit(star, 1)
    assert phases(star)[-1] == (1, "pack")


@pytest.mark.parametrize("kind", ["SIGTERM", "error"])
def test_sigterm_and_errors_of_an_evaluation_lose_no_training(
    make_star, weights_held, kind
):
    def end(number):
        threading.Timer(1.0, weights_held.set).start()
        if kind == "error":
            raise ValueError("no completion")
        os.kill(os.getpid(), signal.SIGTERM)

    star = make_star(sampler=SamplerOfEvaluation(end))
    with pytest.raises((ValueError, SystemExit), match="no completion|75"):
        fit(star, 1)
    assert phases(star)[-1] == (1, "train")
    sampler = scripted()
    star = make_star(sampler=sampler)
    assert star.initial_epoch == 1
    fit(star, 1)
    assert len(sampler.prompts) == {"SIGTERM": 4, "error": 6}[kind]
