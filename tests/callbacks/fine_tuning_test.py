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
    examples = StoredExamples(tokenize_stream(model.preprocessor, TEXTS))
    held_out = StoredExamples(tokenize_stream(model.preprocessor, TEXTS[:5]))
    arguments = {**SIZES, "eval_examples": held_out, **settings}
    return FineTuning(model, examples, run_dir, **arguments), model


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
        ({"eval_examples": []}, "`eval_examples`. Expected at least one example"),
    ],
)
def test_bad_arguments_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tuning(tmp_path, **settings)
