"""Runs that are cut, and runs that start over."""

import os
import resource
import signal

import keras
import numpy as np
import pytest

from star_keras.config import OptimizerConfig
from star_keras.sampling import BatchSampler
from star_keras.storage.run_check import check_run
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.training import compile_model
from star_keras.training.dataset import feed_token_ids
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    fit,
    half_right,
    metrics,
    scripted,
)


def test_killed_run_goes_on_and_ends_the_same(uncut, make_star, make_model):
    class KillError(Exception):
        pass

    class KilledSampler(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                if len(self.prompts) > 60:
                    raise KillError
                yield batch

    whole, whole_model = uncut(3)
    with pytest.raises(KillError):
        fit(make_star("cut", sampler=KilledSampler(half_right)), 3)

    model = make_model()
    sampler = scripted()
    star = make_star("cut", model, sampler=sampler)
    assert star.initial_epoch == 1
    fit(star, 3)
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


@pytest.mark.parametrize("iteration", [1, 2])
def test_kill_between_the_weights_and_their_note_loses_neither(
    uncut, make_star, make_model, monkeypatch, iteration
):
    class KillError(Exception):
        pass

    whole, whole_model = uncut(3)
    cut = make_star("cut")
    finish = cut.run.finish

    def killed(number, phase, metrics):
        if (number, phase) == (iteration, "train"):
            raise KillError
        finish(number, phase, metrics)

    monkeypatch.setattr(cut.run, "finish", killed)
    with pytest.raises(KillError):
        fit(cut, 3)

    model = make_model()
    star = make_star("cut", model)
    assert star.initial_epoch == iteration - 1
    fit(star, 3)
    assert metrics(star) == metrics(whole)
    assert_equal_weights(model, whole_model)
    assert len(star.run.checkpoints.weights.names()) == 1


def test_schedule_may_be_any_function(make_star):
    fit(make_star(steps=lambda iteration, steps_per_pass: 2), 1)
    star = make_star(steps=lambda iteration, steps_per_pass: 2)
    fit(star, 2)
    assert len(metrics(star)) == 3


class Terminated(ScriptedSampler):
    """Gets a SIGTERM when it has sampled so many prompts."""

    def __init__(self, after):
        super().__init__(half_right)
        self._after = after

    def sample(self, requests, *, stop=()):
        for batch in super().sample(requests, stop=stop):
            if self._after is not None and len(self.prompts) >= self._after:
                self._after = None
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class TerminateAtStep(keras.callbacks.Callback):
    """Gets a SIGTERM in a step, counted over all iterations."""

    def __init__(self, step):
        super().__init__()
        self._left = step

    def on_train_batch_begin(self, batch, logs=None):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("prompts", [4, 20, 40, 47, 71])
def test_sigterm_while_sampling_loses_no_batch(uncut, make_star, make_model, prompts):
    """In the first evaluation, the rationales, the rationalizations, ..."""
    whole, whole_model = uncut(2)
    model = make_model()
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as error:
        fit(make_star("cut", sampler=Terminated(prompts)), 2)
    assert error.value.code == 75
    assert signal.getsignal(signal.SIGTERM) == handler
    sampler = scripted()
    star = make_star("cut", model, sampler=sampler)
    fit(star, 2)
    # 6 held-out problems three times, 24 + 12 twice, and none of them again.
    stored = -(-prompts // 5) * 5
    assert 90 - stored - 4 <= len(sampler.prompts) <= 90 - prompts
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


def test_sigterm_after_the_last_evaluation_ends_the_program_too(make_star, make_model):
    terminate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(SystemExit, match="75"):
        fit(make_star("cut"), 1, [terminate])
    star = make_star("cut", make_model())
    assert star.initial_epoch == 1
    fit(star, 1)


@pytest.mark.parametrize("step", [1, 3, 7, 9])
def test_sigterm_in_a_training_goes_on_at_its_step(uncut, make_star, make_model, step):
    steps = {"start_steps": 4, "add_steps": 2, "checkpoint_steps": 2}
    whole, whole_model = uncut(2, **steps)
    model = make_model()
    with pytest.raises(SystemExit, match="75"):
        fit(make_star("cut", **steps), 2, [TerminateAtStep(step)])
    star = make_star("cut", model, **steps)
    made = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: made.append(batch)
    )
    fit(star, 2, [counter])
    # The signal comes after the check of its own step, which is finished.
    assert len(made) == 10 - step
    assert metrics(star) == metrics(whole)
    assert_equal_weights(model, whole_model)


def test_full_disk_is_named_and_the_run_goes_on_when_there_is_room(make_star):
    whole = make_star("whole", skip_eval=True)
    fit(whole, 1)
    star = make_star("cut", skip_eval=True)
    # In the middle of a line of the journal no file may grow further.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large.*make room.*iteration_0001"):
            fit(star, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    cut = star.run.samples.journal_path(1, "rationale").read_bytes()
    assert len(cut) == 4000 and not cut.endswith(b"\n")
    sampler = scripted()
    star = make_star("cut", skip_eval=True, sampler=sampler)
    fit(star, 1)
    assert len(sampler.prompts) < 36
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)


def test_a_finished_phase_is_not_sampled_again(make_star):
    fit(make_star(), 2)
    star = make_star(sampler=ScriptedSampler(lambda request: 1 / 0))
    before = all_samples(star)
    fit(star, 2)
    assert all_samples(star) == before


def test_changed_samples_are_an_error_and_not_trained_on(make_star):
    star = make_star()
    with pytest.raises(SystemExit):
        fit(star, 1, [TerminateAtStep(1)])
    path = star.run.samples.path(1, "rationale")
    size = path.stat().length
    path.write_text("".join(path.read_text().splitlines(True)[1:]))
    with pytest.raises(ValueError, match=f"{size} were written.*start_iter=1"):
        fit(make_star(), 1)


def test_deleted_checkpoint_of_a_training_starts_it_again(make_star, make_model):
    steps = {"start_steps": 6, "checkpoint_steps": 2}
    whole_model, model = make_model(), make_model()
    fit(make_star("whole", whole_model, **steps), 1)
    star = make_star("cut", **steps)
    with pytest.raises(SystemExit):
        fit(star, 1, [TerminateAtStep(5)])
    found = star.run.checkpoints.training.names()
    assert found == ["iteration_0001_step_00000004", "iteration_0001_step_00000005"]
    for name in found:
        star.run.checkpoints.training.delete(name)
    fit(make_star("cut", model, **steps), 1)
    assert_equal_weights(model, whole_model)


def test_two_runs_with_one_seed_write_the_same(make_star, make_model):
    def run(name, seed):
        model = make_model()
        sampler = BatchSampler(model, max_new_tokens=8, temperature=1.0, seed=seed)
        star = make_star(name, model, sampler=sampler, seed=seed, n_train_samples=6)
        fit(star, 2)
        return metrics(star), all_samples(star)

    first = run("first", 1)
    assert run("second", 1) == first
    assert run("third", 2) != first


def test_rewind_runs_iterations_again(make_star, make_model):
    star = make_star(keep_weights=2)
    fit(star, 3)
    before = metrics(star)
    again = make_star(keep_weights=2)
    again.rewind(3)
    assert again.initial_epoch == 2
    fit(again, 3)
    assert metrics(again) == before
    assert (again.run_dir / "discarded-1" / "samples" / "iteration_0003").exists()
    with pytest.raises(ValueError, match="weights of iteration 1, which are gone"):
        again.rewind(2)
    with pytest.raises(ValueError, match="1 to 4.*iteration=9"):
        again.rewind(9)


def test_a_run_whose_manifest_was_cut_runs_again_to_the_same_end(uncut, make_star):
    whole, _ = uncut(3)
    star = make_star("cut")
    fit(star, 3)
    weights = star.run.checkpoints.weights
    assert weights.names() == ["iteration_0003"]
    lines = star.run.manifest.read_text().splitlines(True)
    star.run.manifest.write_text("".join(["damaged\n", *lines[1:]]))
    for finding in check_run(star.run):
        if finding.mend is not None:
            finding.mend()
    # Killed after its first iteration, and a second time.
    with pytest.warns(UserWarning, match="moved to .*discarded-1"):
        fit(make_star("cut"), 1)
    assert weights.names() == ["iteration_0001"]
    again = make_star("cut")
    fit(again, 3)
    assert weights.names() == ["iteration_0003"]
    assert metrics(again) == metrics(whole)
    assert all_samples(again) == all_samples(whole)
    moved = again.run_dir / "discarded-1"
    assert (moved / "weights" / "iteration_0003").exists()
    assert (moved / "samples" / "iteration_0003" / "rationale.jsonl").exists()


def test_after_a_rewind_every_iteration_starts_with_a_fresh_optimizer(
    make_star, make_model
):
    fit(make_star(), 1)
    model = make_model()
    again = make_star(model=model)
    again.rewind(1)
    starts = []

    class SeeStart(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                starts.append([np.array(v.value) for v in model.optimizer.variables])

    fit(again, 2, [SeeStart()])
    for first, second in zip(*starts, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_rewind_that_was_killed_is_an_error_and_not_skipped(make_star):
    fit(make_star(keep_weights=3), 3)
    star = make_star(keep_weights=3)
    # The kill came when the last weights had moved, before everything else.
    weights = star.run_dir / "weights" / "iteration_0003"
    weights.rename(star.run_dir / "moved")
    with pytest.raises(ValueError, match="iteration_0003 is missing.*start_iter=3"):
        fit(star, 4)
    star.rewind(2)
    assert star.initial_epoch == 1


def test_run_directory_of_another_configuration_is_refused(make_star, make_model):
    def start(**kwargs):
        fit(make_star(**kwargs), 0)

    start()
    start()
    start(keep_weights=3, on_empty="stop")  # free settings
    with pytest.raises(ValueError, match="another configuration.*copy_n: 0 there, 3"):
        start(copy_n=3)
    model = make_model()
    model.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="optimizer"):
        start(model=model)
    with pytest.raises(ValueError, match="problems_crc32"):
        start(task=Doubling(train=23))
    with pytest.raises(ValueError, match="base_weights_crc32.*load the base model"):
        start(model=make_model(seed=1))
    with pytest.raises(ValueError, match="dtype: 'float32' there, 'mixed_bfloat16'"):
        start(model=make_model(dtype="mixed_bfloat16"))
    model = make_model()
    compile_model(model, OptimizerConfig(lora_rank=2))
    with pytest.raises(ValueError, match="lora_rank: None there, 2 here") as error:
        start(model=model)
    assert "trained already" not in str(error.value)
    model = make_model()
    model.backbone.token_embedding.trainable = False
    with pytest.raises(ValueError, match="frozen_weights_crc32: None there, "):
        start(model=model)
    with pytest.raises(ValueError, match="steps: 'None' there, '<function"):
        start(steps=lambda iteration, steps_per_pass: 2)


def test_wrong_initial_epoch_is_an_error(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    fit(star, 1)
    with pytest.raises(ValueError, match="`initial_epoch`.*the 1 iterations of"):
        model.fit(star.dataset, epochs=2, callbacks=[star], verbose=0, shuffle=False)


def test_steps_per_epoch_and_another_model_are_errors(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    with pytest.raises(ValueError, match="`steps_per_epoch`.*the schedule decides"):
        model.fit(
            star.dataset, steps_per_epoch=3, callbacks=[star], verbose=0, shuffle=False
        )
    other = make_model()
    feed_token_ids(other)
    with pytest.raises(ValueError, match="`model`. Expected the model that is fitted"):
        other.fit(star.dataset, callbacks=[star], verbose=0, shuffle=False)


def test_missing_weights_are_an_error(make_star):
    fit(make_star(), 1)
    star = make_star()
    star.run.checkpoints.weights.delete("iteration_0001")
    with pytest.raises(ValueError, match="iteration_0001 is missing.*start_iter=1"):
        fit(star, 2)
