"""Fine-tuning in a directory: metrics, resume, errors."""

import os
import signal

import keras
import numpy as np
import pytest

from star_keras.callbacks import FineTuning
from star_keras.config import OptimizerConfig, RunConfig, TrainingConfig
from star_keras.testing import tiny_gpt_j
from star_keras.training import compile_model
from star_keras.training.examples import TrainingExample
from star_keras.training.stored_examples import StoredExamples, tokenize_stream

TEXTS = [(f"{i}:", " qz" * (i % 4 + 1), 1.0) for i in range(12)]
SIZES = {
    "training": TrainingConfig(batch_size=2, sequence_length=32),
    "run": RunConfig(checkpoint_steps=3, seed=4),
    "steps": 10,
    "eval_steps": 4,
}


def tuning(run_dir, **settings):
    """A fine-tuning of a fresh model, as another process would begin it."""
    model = tiny_gpt_j(num_layers=1, dropout=0.1)
    compile_model(model, OptimizerConfig(learning_rate=1e-2, warmup_steps=2))
    held_out = examples_of(model, TEXTS[:5])
    arguments = {**SIZES, "eval_examples": held_out, **settings}
    return FineTuning(model, examples_of(model), run_dir, **arguments), model


def examples_of(model, texts=TEXTS):
    return StoredExamples(tokenize_stream(model.preprocessor, texts))


def weights(model):
    return [np.asarray(v) for v in model.variables]


def without_times(metrics):
    return [
        {k: v for k, v in line.items() if k != "tokens_per_second"} for line in metrics
    ]


class At(keras.callbacks.Callback):
    """Does something at the beginning of the n-th step of this process."""

    def __init__(self, n, action):
        super().__init__()
        self.left, self.action = n, action

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.action()


class Stop(keras.callbacks.Callback):
    """Stops in a step of this process, or at the end of an epoch."""

    def __init__(self, step=0, epoch=None):
        super().__init__()
        self.left, self.epoch = step, epoch

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.stop_training = True


def fail():
    raise OSError("cut")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Weights and metrics of an uninterrupted fine-tuning, and its directory."""
    run_dir = tmp_path_factory.mktemp("whole")
    one, model = tuning(run_dir)
    one.fit(verbose=0)
    return weights(model), without_times(one.directory.metrics), run_dir


def test_sigterm_after_the_last_step_ends_the_program_too(whole, tmp_path):
    one, model = tuning(tmp_path)
    at_end = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: terminate() if epoch == 2 else None
    )
    with pytest.raises(SystemExit, match="75"):
        one.fit(callbacks=[at_end], verbose=0)
    assert one.directory.is_finished
    for found, expected in zip(weights(model), whole[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_steps_per_execution_is_refused(tmp_path):
    one, model = tuning(tmp_path)
    model.steps_per_execution = 2
    with pytest.raises(ValueError, match="`steps_per_execution`. Expected 1"):
        one.fit(verbose=0)


def test_a_scheduled_rate_that_cannot_train_is_refused(tmp_path):
    one, model = tuning(tmp_path)
    compile_model(model, OptimizerConfig(warmup_steps=0))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: -1.0)
    with pytest.raises(ValueError, match="`learning_rate`. Expected a finite number"):
        one.fit([scheduler], verbose=0)


def test_held_out_loss_falls_and_each_epoch_has_a_line(whole):
    _, metrics, _ = whole
    assert [line["step"] for line in metrics] == [0, 4, 8, 10]
    assert metrics[-1]["val_loss"] < metrics[0]["val_loss"] - 0.5
    for line in metrics:
        assert line["val_perplexity"] == pytest.approx(np.exp(line["val_loss"]))
    assert {"loss", "gradient_norm", "token_utilization"} <= metrics[1].keys()
    assert metrics[1]["learning_rate"] == pytest.approx(1e-2)


def test_a_training_cut_at_any_step_ends_as_the_whole_one(whole, tmp_path):
    # Within the first epoch, at its end, right after a checkpoint.
    for step, action, error in (
        (3, fail, OSError),
        (3, terminate, SystemExit),
        (5, fail, OSError),
    ):
        one, model = tuning(tmp_path / "run")
        with pytest.raises(error):
            one.fit([At(step, action)], verbose=0)
    one, model = tuning(tmp_path / "run")
    one.fit(verbose=0)
    expected, metrics, _ = whole
    assert without_times(one.directory.metrics) == metrics
    for found, value in zip(weights(model), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    assert not list((tmp_path / "run" / "training").iterdir())


def test_a_finished_training_is_only_restored(whole):
    expected, metrics, run_dir = whole
    one, model = tuning(run_dir)
    one.fit([At(1, fail)], verbose=0)
    assert without_times(one.directory.metrics) == metrics
    for found, value in zip(weights(model), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_another_configuration_is_refused(whole):
    for settings in ({"steps": 11}, {"run": RunConfig(seed=5)}):
        one, _ = tuning(whole[2], **settings)
        with pytest.raises(ValueError, match="another configuration .(steps|seed): "):
            one.fit(verbose=0)


def test_weights_that_are_not_finite_end_the_training(tmp_path):
    one, model = tuning(tmp_path)
    kernel = model.trainable_variables[0]
    kernel.assign(kernel * np.nan)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        one.fit(verbose=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps`"),
        ({"eval_steps": 0}, "`eval_steps`"),
        (
            {"eval_examples": [1, 2]},
            "`eval_examples`. Expected `StoredExamples`.*'list",
        ),
        (
            {"eval_examples": StoredExamples([])},
            "`eval_examples`. Expected at least one example",
        ),
        (
            {"training": TrainingConfig(batch_size=2, sequence_length=6)},
            r"sequence_length=6 tokens. Received: examples\[11\] of 11 tokens",
        ),
    ],
)
def test_bad_arguments_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tuning(tmp_path, **settings)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0, 0], "`eval_examples`. Expected at least one weight above 0"),
        ([1, -1], r"`eval_examples\[1\].weight`.*finite.*at least 0.*-1"),
        ([np.nan, 1], r"`eval_examples\[0\].weight`.*finite.*at least 0.*nan"),
    ],
)
def test_weights_of_examples_are_checked(tmp_path, weights, message):
    ids = np.array([1, 2], "int32")
    held_out = StoredExamples(
        TrainingExample(prompt_ids=ids, response_ids=ids, weight=w) for w in weights
    )
    with pytest.raises(ValueError, match=message):
        tuning(tmp_path, eval_examples=held_out)


# === The loss ===


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def test_a_loss_that_is_no_weighted_mean_is_refused(tmp_path):
    one, model = tuning(tmp_path)
    model.compile("adam", loss=cross_entropy())
    with pytest.raises(ValueError, match="sum_over_batch_size.*Compile the model with"):
        FineTuning(model, examples_of(model), tmp_path, steps=1)
    with pytest.raises(ValueError, match="sum_over_batch_size.*Compile the model with"):
        one.fit(verbose=0)


def test_an_optimizer_that_averages_weights_is_refused(tmp_path):
    one, model = tuning(tmp_path)
    loss = cross_entropy(reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.Adam(use_ema=True), loss=loss)
    with pytest.raises(ValueError, match="`use_ema`. Expected False"):
        FineTuning(model, examples_of(model), tmp_path, steps=1)
    with pytest.raises(ValueError, match="`use_ema`. Expected False"):
        one.fit(verbose=0)


def test_metrics_of_ones_own_are_recorded_of_both_sets_and_restored(tmp_path):
    def with_accuracy():
        one, model = tuning(tmp_path, steps=4, eval_steps=2)
        loss = cross_entropy(reduction="mean_with_sample_weight")
        model.compile("adam", loss=loss)  # with the accuracy, the default of KerasHub
        return one, model

    one, model = with_accuracy()
    one.fit([Stop(step=3)], verbose=0)
    line = one.directory.metrics[-1]
    names = {"sparse_categorical_accuracy", "val_sparse_categorical_accuracy"}
    assert names <= line.keys()
    assert line["val_perplexity"] == pytest.approx(np.exp(line["val_loss"]))
    other, restored = with_accuracy()
    assert other.restore() == 3
    for found, value in zip(weights(restored), weights(model), strict=True):
        np.testing.assert_array_equal(found, value)


# === Stopped by another callback ===


# Within an epoch, with its last step, and at its end.
@pytest.mark.parametrize(
    ("stop", "step", "same_process"),
    [
        ({"step": 5}, 5, False),
        ({"step": 5}, 5, True),
        ({"step": 4}, 4, False),
        ({"epoch": 1}, 8, False),
        ({"epoch": 1}, 8, True),
    ],
)
def test_a_stopped_training_is_saved_and_goes_on_as_the_whole_one(
    whole, tmp_path, stop, step, same_process
):
    one, model = tuning(tmp_path)
    one.fit([Stop(**stop)], verbose=0)
    assert (tmp_path / "training" / f"iteration_0001_step_{step:08d}").is_dir()
    again, its_model = (one, model) if same_process else tuning(tmp_path)
    stopped = weights(model)
    assert again.restore() == step
    for found, value in zip(weights(its_model), stopped, strict=True):
        np.testing.assert_array_equal(found, value)
    again.fit(verbose=0)
    assert without_times(again.directory.metrics) == whole[1]
    for found, value in zip(weights(its_model), whole[0], strict=True):
        np.testing.assert_array_equal(found, value)
    assert again.restore() == 10


def test_early_stopping_with_the_best_weights_goes_on_from_its_last_step(tmp_path):
    one, model = tuning(tmp_path, steps=6, eval_steps=2)
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", min_delta=100, patience=1, restore_best_weights=True
    )
    one.fit([stopping], verbose=0)
    assert [line["step"] for line in one.directory.metrics] == [0, 2, 4]
    best = weights(model)
    assert one.restore() == 4
    assert any((a != b).any() for a, b in zip(weights(model), best, strict=True))
    one.fit(verbose=0)
    assert [line["step"] for line in one.directory.metrics] == [0, 2, 4, 6]


def test_another_optimizer_does_not_go_on_from_a_checkpoint(tmp_path):
    one, model = tuning(tmp_path)
    one.fit([Stop(step=5)], verbose=0)
    compile_model(model, OptimizerConfig(learning_rate=1e-3, warmup_steps=2))
    with pytest.raises(ValueError, match="another configuration .optimizer.config"):
        one.fit(verbose=0)


def test_a_model_trained_without_a_checkpoint_is_no_base_model(tmp_path):
    one, _ = tuning(tmp_path)
    with pytest.raises(OSError, match="cut"):
        one.fit([At(3, fail)], verbose=0)
    with pytest.raises(ValueError, match="no checkpoint.*Load the base model again"):
        one.fit(verbose=0)
    with pytest.raises(ValueError, match="no checkpoint.*Load the base model again"):
        one.restore()


# === One fit at a time, and its own ===


def test_model_fit_is_told_to_call_fit_of_the_callback(tmp_path):
    one, model = tuning(tmp_path)
    with pytest.raises(ValueError, match=r"`callbacks`.*Call.*`tuning.fit\("):
        model.fit(["a b"], batch_size=1, callbacks=[one], shuffle=False, verbose=0)
    with pytest.raises(ValueError, match="`callbacks`.*besides this one"):
        one.fit([one], verbose=0)


def test_a_directory_that_is_fitted_in_is_refused_within_the_process(tmp_path):
    """In a notebook the other fit may be that of a thread."""
    (one, _), (other, _) = (tuning(tmp_path, steps=3) for _ in range(2))

    def refused():
        for tried in (one, other):
            for call in (tried.fit, tried.restore):
                with pytest.raises(RuntimeError, match="in use by another fit of this"):
                    call()

    one.fit([At(2, refused)], verbose=0)
    other.restore()
    assert [line["step"] for line in other.directory.metrics] == [0, 3]
    assert (tmp_path / "lock").read_text() == ""
