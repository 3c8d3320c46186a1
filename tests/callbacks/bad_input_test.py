"""What a run refuses, and when: before anything is sampled, or before it is saved."""

import os
import signal
import time

import keras
import numpy as np
import pytest

from star_keras.config import OptimizerConfig
from star_keras.distribution import preemption
from star_keras.sampling import Completion, Sampler
from star_keras.testing import ScriptedSampler
from star_keras.training import compile_model
from tests.callbacks.conftest import fit, half_right, scripted


def with_rate(model, rate):
    model.optimizer.learning_rate = rate
    return model


def compiled(model, **kwargs):
    compile_model(model, OptimizerConfig(warmup_steps=0, **kwargs))
    return model


def recompiled(model, **kwargs):
    model.compile(optimizer=keras.optimizers.Adam(1e-3), **kwargs)
    return model


def nothing(request):
    raise AssertionError("sampled")


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (with_rate, {"rate": np.nan}, "`learning_rate`.*finite.*nan"),
        (with_rate, {"rate": np.inf}, "`learning_rate`.*finite.*inf"),
        (with_rate, {"rate": -1.0}, "`learning_rate`.*at least 0.*-1.0"),
        (
            recompiled,
            {"steps_per_execution": 4},
            "`steps_per_execution`. Expected 1.*steps_per_execution=4",
        ),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_before_it_samples(
    make_star, make_model, change, settings, message
):
    star = make_star(model=change(make_model(), **settings), sampler=scripted(nothing))
    with pytest.raises(ValueError, match=message):
        fit(star, 1)


def test_another_callbacks_dataset_is_refused(make_star, make_model):
    model = make_model()
    other = make_star("other", model)
    star = make_star("own", model)
    arguments = {"epochs": 1, "callbacks": [star], "verbose": 0, "shuffle": False}
    with pytest.raises(ValueError, match="`callbacks`. Expected the callback of the d"):
        model.fit(other.dataset, **arguments)
    assert star.run.read_phases() == {}
    with pytest.raises(ValueError, match="`x`. Expected the `dataset` of this callb"):
        model.fit(other.dataset.prefetch(1), **arguments)
    assert star.initial_epoch == 0
    fit(star, 1)
    assert star.initial_epoch == 1


def test_a_fit_without_the_callback_ends_with_an_error(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    with pytest.raises(ValueError, match="`callbacks`. Expected the callback of the d"):
        model.fit(star.dataset, epochs=1, verbose=0, shuffle=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10**9}, "`batch_size`.*GiB of memory.*1000000000"),
        ({"sequence_length": 20}, "`sequence_length`.*at least 23.*problem 'double-1"),
        ({"seed": -1}, "`seed`.*at least 0.*-1"),
        ({"few_shot_train": True, "sequence_length": 60}, "`sequence_length`.*problem"),
        ({"direct": True, "sequence_length": 30}, "`sequence_length`.*problem"),
    ],
)
def test_sizes_are_checked_by_the_constructor(make_star, settings, message):
    with pytest.raises(ValueError, match=message):
        make_star(**settings)


def test_parts_of_a_batch_divide_it(make_star, make_model):
    model = compiled(make_model(), gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="`batch_size`.*multiple of grad.*=4.*=2"):
        make_star(model=model)


@pytest.mark.parametrize("epochs", [1.5, "2", -1, True, None])
def test_epochs_are_a_count(make_star, epochs):
    with pytest.raises(ValueError, match="`epochs`. Expected an integer of at least 0"):
        fit(make_star(), epochs)


@pytest.mark.parametrize("iteration", ["1", 1.0, None])
def test_the_iteration_of_a_rewind_is_a_count(make_star, iteration):
    with pytest.raises(ValueError, match="`iteration`. Expected an integer"):
        make_star().rewind(iteration)


@pytest.mark.parametrize("steps", [np.nan, np.inf, 0, -1, 2.0, "2", None])
def test_steps_of_a_schedule_of_ones_own_are_a_count(make_star, steps):
    star = make_star(steps=lambda iteration, steps_per_pass: steps, skip_eval=True)
    with pytest.raises(ValueError, match="`steps`.*integer of at least 1.*iteration 1"):
        fit(star, 1)


@pytest.mark.parametrize("wrong", [None, "arithmetic", object(), dict])
def test_what_is_no_task_or_model_is_refused(make_star, wrong):
    with pytest.raises(ValueError, match="`task`. Expected an object of"):
        make_star(task=wrong)
    with pytest.raises(ValueError, match="`model`. Expected a causal LM"):
        make_star(model=wrong or object())


class Strange(Sampler):
    """Returns what it is told for the first request, and nothing else."""

    def __init__(self, *returned):
        self.returned = returned

    def sample(self, requests, *, stop=()):
        yield list(self.returned)


def completion(**kwargs):
    return Completion(
        **{"text": "", "num_tokens": 1, "finish_reason": "stop", **kwargs}
    )


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([], "left out 6 of 6 requests"),
        ([(0, completion()), (0, completion())], "request 0 twice"),
        ([(6, completion())], "request 6 unasked.*from 0 to 5"),
        ([(-1, completion())], "request -1 unasked"),
        ([("0", completion())], "request '0' unasked"),
        ([(True, completion())], "request True unasked"),
        ([(0, "text")], "returned 'text'. Expected a `star_keras.*Completion`"),
        ([(0, completion(text=None))], "a `text` that UTF-8"),
        ([(0, completion(text="a\ud800"))], "without lone surrogates"),
        ([(0, completion(num_tokens=-1))], "a `num_tokens`"),
        ([(0, completion(num_tokens=1.5))], "a `num_tokens`"),
        ([(0, completion(finish_reason="end"))], "a `finish_reason`"),
    ],
)
def test_what_a_sampler_of_ones_own_returns_is_checked(make_star, returned, message):
    with pytest.raises(ValueError, match=f"Strange object.*{message}"):
        fit(make_star(sampler=Strange(*returned)), 1)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None. Expected a generator"),
        ([(0, completion())], r"yielded \(0, Completion.*Expected lists of pairs"),
        ([[0, 1]], r"yielded \[0, 1\]. Expected lists of pairs"),
        ([0], "yielded 0. Expected lists of pairs"),
    ],
)
def test_a_sampler_of_ones_own_yields_lists_of_pairs(make_star, returned, message):
    class Own(Strange):
        def sample(self, requests, *, stop=()):
            return returned

    with pytest.raises(ValueError, match=f"Own object.*{message}"):
        fit(make_star(sampler=Own()), 1)


@pytest.mark.parametrize("config", [{"x": {1, 2}}, {(1, 2): 3}, None, [1]])
def test_settings_of_a_sampler_of_ones_own_are_json(make_star, config):
    class Own(Strange):
        def get_config(self):
            return config

    with pytest.raises(ValueError, match="`get_config`.*JSON.*Own object.*Leave"):
        make_star(sampler=Own())


def test_a_sampler_of_ones_own_may_return_indices_of_numpy(make_star):
    class Shuffled(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                yield [(np.int64(i), completion) for i, completion in batch]

    star = make_star(sampler=Shuffled(half_right))
    fit(star, 1)
    assert star.metrics[-1]["train_accuracy"] == 0.5


def test_weights_that_are_not_finite_are_not_saved(make_star, make_model):
    """The loss of the last step is that of the weights before it."""
    model = with_rate(make_model(), 1e-3)

    class NanAtTheEnd(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.jax_state_sync()
                variable = self.model.trainable_variables[0]
                variable.assign(variable * np.nan)

    star = make_star(model=model, start_steps=2, skip_eval=True)
    with pytest.raises(FloatingPointError, match="After step 2 of iteration 1 1 weig"):
        fit(star, 1, [NanAtTheEnd()])
    assert star.run.checkpoints.weights.names() == []
    assert star.initial_epoch == 0


# === After an error, and signals ===


class Broken(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise KeyError("mine")


def test_an_error_in_model_fit_lets_go_of_directory_and_signals(make_star, make_model):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    model = make_model()
    star = make_star(model=model, skip_eval=True)
    with pytest.raises(KeyError, match="mine"):
        model.fit(
            star.dataset, callbacks=[star, Broken()], shuffle=False, verbose=0, epochs=1
        )
    assert (star.run_dir / "lock").read_text() == ""
    now = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert now == handlers


def test_many_callbacks_of_a_model_wrap_its_fit_once(make_star, make_model):
    model = make_model()
    make_star(model=model)
    wrapped = model.fit
    stars = [make_star("other", model=model, skip_eval=True) for _ in range(2)]
    assert model.fit is wrapped
    with pytest.raises(KeyError, match="mine"):
        fit(stars[1], 1, [Broken()])
    for star in stars:
        assert (star.run_dir / "lock").read_text() == ""


class FitWithin(keras.callbacks.Callback):
    """Fits another callback in the first step."""

    def __init__(self, star):
        super().__init__()
        self.star = star

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            with pytest.raises(RuntimeError, match="in use by another fit of this pro"):
                fit(self.star, 1)
            with pytest.raises(RuntimeError, match="in use by another fit of this pro"):
                self.star.rewind(1)
            assert self.model.star.run.is_open
            assert (self.star.run_dir / "lock").read_text() != ""


@pytest.mark.parametrize("same", [False, True])
def test_a_directory_that_is_fitted_in_is_refused_within_the_process(
    make_star, make_model, same
):
    """In a notebook the other fit may be that of a thread."""
    model = make_model()
    star = make_star(model=model, skip_eval=True)
    other = star if same else make_star(skip_eval=True)
    object.__setattr__(model, "star", star)
    fit(star, 1, [FitWithin(other)])
    assert star.initial_epoch == 1
    assert (star.run_dir / "lock").read_text() == ""
    fit(other, 1)  # finds the iteration


def test_a_second_run_of_a_notebook_cell_is_told_how_to_go_on(make_star, make_model):
    model = make_model()
    fit(make_star(model=model, skip_eval=True), 1)
    with pytest.raises(ValueError, match="2 steps.*trained already.*load the base"):
        fit(make_star(model=model, skip_eval=True), 2)
    again = recompiled(model)
    with pytest.raises(ValueError, match="base_weights.*trained already.*load the"):
        fit(make_star(model=again, skip_eval=True), 2)


@pytest.mark.parametrize("prompts", [4, 20])
def test_ctrl_c_saves_and_says_how_to_go_on(make_star, capfd, prompts):
    sampler = scripted()

    def interrupted(request):
        if len(sampler.prompts) == prompts:
            os.kill(os.getpid(), signal.SIGINT)
        return half_right(request)

    sampler.script = interrupted
    with pytest.raises(SystemExit) as error:
        fit(make_star(sampler=sampler), 1)
    assert error.value.code == 130
    said = capfd.readouterr().err
    assert "Ctrl-C: saving. Once more ends the program at once." in said
    assert "Repeat the command" in said
    sampler.script = half_right
    fit(make_star(sampler=sampler), 1)
    assert 48 <= len(sampler.prompts) <= 48 + 5


class TerminateAtStep(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_save_that_takes_too_long_does_not_keep_the_machine(
    make_star, monkeypatch, capfd
):
    class EndedError(Exception):
        pass

    def end(code):
        # The system's `_exit` flushes nothing.
        flushed.append(os.read(reader, 100))
        raise EndedError(code)

    flushed, (reader, writer) = [], os.pipe()
    os.set_blocking(reader, False)

    star = make_star(start_steps=6, skip_eval=True)
    monkeypatch.setattr(preemption, "_PATIENCE", 0.2)
    monkeypatch.setattr(preemption.os, "_exit", end)
    save = star.run.checkpoints.training.save
    slow = lambda *args: (time.sleep(2), save(*args))  # noqa: E731
    monkeypatch.setattr(star.run.checkpoints.training, "save", slow)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(preemption.sys, "stdout", stdout)
        print("the last line", end="")
        with pytest.raises(EndedError, match="75"):
            fit(star, 1, [TerminateAtStep()])
    os.close(reader)
    assert "could not be saved within 0.2 seconds" in capfd.readouterr().err
    assert flushed == [b"the last line"]
