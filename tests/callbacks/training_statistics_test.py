import math
import time

import keras
import numpy as np
import pytest

from star_keras.callbacks import TrainingStatistics


def drive(steps, seconds=0.0, tokens_per_step=100):
    """The epoch's logs after steps that logged this."""
    statistics = TrainingStatistics(tokens_per_step)
    statistics.on_epoch_begin(0)
    for batch, logs in enumerate(steps):
        statistics.on_train_batch_begin(batch)
        time.sleep(seconds)
        statistics.on_train_batch_end(batch, logs)
    logs = dict(steps[-1])
    statistics.on_epoch_end(0, logs)
    return logs


def test_epoch_logs_averages_over_its_steps():
    logs = drive(
        [
            {"loss": 3.0, "gradient_norm": 1.0, "real_token_share": 0.5},
            {"loss": 2.0, "gradient_norm": 4.0, "real_token_share": 1.0},
        ]
    )
    assert logs["gradient_norm"] == 2.5 and logs["real_token_share"] == 0.75
    assert logs["loss"] == 2.0


def test_speed_counts_real_tokens_after_the_first_step():
    logs = drive([{"real_token_share": 0.1}] + 4 * [{"real_token_share": 0.5}], 0.02)
    assert 4 * 50 / 0.2 < logs["tokens_per_second"] <= 4 * 50 / 0.08
    # A model that does not log the share: all tokens count.
    logs = drive(5 * [{"loss": 1.0}], 0.02)
    assert 4 * 100 / 0.2 < logs["tokens_per_second"] <= 4 * 100 / 0.08
    assert "tokens_per_second" not in drive([{"loss": 1.0}])


def test_noise_scale_is_a_ratio_of_averages():
    steps = [
        {"gradient_signal": 1.0, "gradient_noise": 30.0},
        {"gradient_signal": 3.0, "gradient_noise": 10.0},
    ]
    assert drive(steps)["gradient_noise_scale"] == 10.0
    assert math.isnan(
        drive([{"gradient_signal": -1.0, "gradient_noise": 1.0}])[
            "gradient_noise_scale"
        ]
    )


def test_fit_has_the_figures_in_its_history(make_model):
    model = make_model(num_layers=1)
    model.compile("adam", weighted_metrics=[], gradient_accumulation_steps=2)
    model.preprocessor = None
    tokens = np.random.default_rng(0).integers(0, 258, (8, 12), "int32")
    x = {"token_ids": tokens, "padding_mask": (np.arange(12) < 9) * np.ones((8, 1))}
    statistics = TrainingStatistics(4 * 12)
    callbacks = keras.callbacks.CallbackList([statistics], model=model)
    assert callbacks._async_train
    history = model.fit(
        x, tokens, batch_size=4, shuffle=False, verbose=0, callbacks=[statistics]
    ).history
    assert set(history) == {
        *("loss", "gradient_norm", "gradient_noise_scale"),
        *("real_token_share", "tokens_per_second"),
    }
    assert history["real_token_share"] == [pytest.approx(0.75)]
    assert history["tokens_per_second"][0] > 0
