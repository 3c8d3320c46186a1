"""Callbacks of Keras before and after ours."""

import importlib.util
import signal

import keras
import numpy as np
import pytest

from star_keras.training import compile_model
from tests.callbacks.conftest import (
    fit,
)


def test_early_stop_by_another_callback_leaves_the_iteration_unfinished(make_star):
    class StopAtOnce(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    star = make_star(start_steps=5)
    fit(star, 3, [StopAtOnce()])
    assert star.initial_epoch == 0


class LearningRates(keras.callbacks.Callback):
    """The learning rate of each iteration's steps."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(round(float(self.model.optimizer.learning_rate), 6))


@pytest.mark.parametrize("before", [False, True])
def test_a_learning_rate_scheduler_works_on_either_side(make_star, make_model, before):
    model, rates = make_model(), LearningRates()
    star = make_star(model=model, add_steps=0)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1))
    order = [scheduler, star] if before else [star, scheduler]
    model.fit(
        star.dataset, epochs=2, callbacks=[*order, rates], verbose=0, shuffle=False
    )
    assert rates.seen == [0.01, 0.01, 0.005, 0.005]
    recorded = [line["learning_rate"] for line in star.metrics[1:]]
    assert recorded == pytest.approx([0.01, 0.005])


@pytest.mark.parametrize("rate", [-1e-3, np.nan])
def test_a_scheduled_rate_that_cannot_train_is_refused(make_star, rate):
    star = make_star()
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: rate)
    with pytest.raises(ValueError, match="`learning_rate`. Expected a finite number"):
        fit(star, 1, [scheduler])
    assert star.initial_epoch == 0


def test_reduce_lr_on_plateau_has_effect_and_survives_a_resume(make_star, make_model):
    def fit_with(star, epochs):
        rates = LearningRates()
        reduce = keras.callbacks.ReduceLROnPlateau(
            monitor="eval_accuracy", mode="max", factor=0.5, patience=1, min_lr=0
        )
        fit(star, epochs, [reduce, rates])
        return rates.seen

    # The accuracy never rises: from the second iteration on the rate is halved.
    star = make_star(add_steps=0)
    assert fit_with(star, 3) == [1e-3] * 4 + [5e-4] * 2
    assert [line.get("learning_rate") for line in star.metrics] == [
        *(None, pytest.approx(1e-3), pytest.approx(1e-3), pytest.approx(5e-4))
    ]
    # Another process begins with the rate of the last iteration.
    assert fit_with(make_star(add_steps=0), 4) == [5e-4] * 2
    star.rewind(1)
    assert fit_with(star, 1) == [1e-3] * 2


@pytest.mark.parametrize("before", [False, True])
def test_early_stopping_ends_the_fit_after_a_whole_iteration(
    make_star, make_model, before
):
    model = make_model()
    star = make_star(model=model)

    class StopAfterTwo(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.stop_training = True

    order = [StopAfterTwo(), star] if before else [star, StopAfterTwo()]
    model.fit(star.dataset, epochs=5, callbacks=order, verbose=0, shuffle=False)
    assert star.initial_epoch == 2
    assert [line["iteration"] for line in star.metrics] == [0, 1, 2]


def test_early_stopping_on_the_held_out_accuracy(make_star):
    stopping = keras.callbacks.EarlyStopping("eval_accuracy", mode="max", patience=1)
    star = make_star()
    fit(star, 9, [stopping])
    assert star.initial_epoch == 2


def test_the_rate_of_a_scaled_optimizer_is_recorded(make_star, make_model):
    model, rates = make_model(), LearningRates()
    adam = keras.optimizers.Adam(1e-3)
    model.compile(optimizer=keras.optimizers.LossScaleOptimizer(adam))
    star = make_star(model=model, add_steps=0)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1))
    fit(star, 2, [scheduler, rates])
    assert rates.seen == [0.01, 0.01, 0.005, 0.005]
    recorded = [line["learning_rate"] for line in star.metrics[1:]]
    assert recorded == pytest.approx([0.01, 0.005])
    # Another optimizer of the program has another name.
    again = make_model()
    adam = keras.optimizers.Adam(1e-3)
    again.compile(optimizer=keras.optimizers.LossScaleOptimizer(adam))
    fit(make_star(model=again, add_steps=0), 2)
    assert float(again.optimizer.learning_rate) == pytest.approx(0.005)


def test_a_single_further_callback_needs_no_list(make_star):
    rates = LearningRates()
    make_star(skip_eval=True).fit(1, rates, verbose=0)
    assert rates.seen == [0.001, 0.001]


def test_further_callbacks_may_come_from_a_generator(make_star):
    rates = LearningRates()
    fit(make_star(skip_eval=True), 1, (callback for callback in [rates]))
    assert rates.seen == [0.001, 0.001]


def test_the_callback_itself_is_no_further_callback(make_star):
    star, other = make_star(), make_star(run_dir="other")
    for further in (star, other):
        with pytest.raises(ValueError, match="`callbacks`.*besides this one, and no"):
            fit(star, 1, [further])


@pytest.mark.parametrize("further", [len, keras.callbacks.CSVLogger, []])
def test_what_is_no_callback_is_refused(make_star, further):
    with pytest.raises(ValueError, match="`callbacks`. Expected objects of `keras"):
        fit(make_star(), 1, [further])


def test_a_model_with_all_weights_frozen_is_refused(make_model, make_star):
    model = make_model()
    model.trainable = False
    compile_model(model)
    star = make_star(model=model)
    with pytest.raises(ValueError, match="`model`. Expected a model with weights to"):
        fit(star, 1)


@pytest.mark.parametrize("in_list", [True, False])
def test_tensorboard_without_its_package_is_refused_before_the_sampling(
    make_star, make_model, monkeypatch, tmp_path, in_list
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name == "tensorboard" else find_spec(name, *args),
    )
    model = make_model()
    star = make_star(model=model)
    callbacks = [star, keras.callbacks.TensorBoard(tmp_path / "logs")]
    if not in_list:
        callbacks = keras.callbacks.CallbackList(callbacks)
    message = "TensorBoard needs.*pip install tensorboard"
    with pytest.raises(ImportError, match=message):
        model.fit(star.dataset, epochs=1, callbacks=callbacks, verbose=0)
    with pytest.raises(ImportError, match=message):
        star.fit(1, callbacks[1:] if in_list else callbacks.callbacks[1:])
    assert not star.run_dir.exists()


def test_an_error_of_another_callback_lets_go_of_the_directory(make_star):
    class Broken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyError("mine")

    handler = signal.getsignal(signal.SIGTERM)
    star = make_star()
    with pytest.raises(KeyError, match="mine"):
        fit(star, 1, [Broken()])
    assert signal.getsignal(signal.SIGTERM) == handler
    assert (star.run_dir / "lock").read_text() == ""
