import time

import numpy as np
import pytest

from star_keras.callbacks import Throughput


class Model:
    steps_per_execution = 1


def drive(steps, seconds=0.0, **logs):
    """The epoch's logs after so many steps."""
    throughput = Throughput(tokens_per_step=100)
    throughput.set_model(Model())
    throughput.on_epoch_begin(0)
    for batch in range(steps):
        throughput.on_train_batch_begin(batch)
        time.sleep(seconds)
    throughput.on_epoch_end(0, logs)
    return logs


def test_speed_counts_real_tokens_after_the_first_step():
    logs = drive(5, 0.02, token_utilization=0.5)
    assert 4 * 50 / 0.2 < logs["tokens_per_second"] <= 4 * 50 / 0.08
    # A model that does not log the share: all tokens count.
    logs = drive(5, 0.02, loss=1.0)
    assert 4 * 100 / 0.2 < logs["tokens_per_second"] <= 4 * 100 / 0.08
    assert "tokens_per_second" not in drive(1, loss=1.0)


def test_fit_has_the_figures_in_its_history(make_model):
    model = make_model(num_layers=1)
    model.compile("adam", weighted_metrics=[], gradient_accumulation_steps=2)
    model.preprocessor = None
    tokens = np.random.default_rng(0).integers(0, 258, (8, 12), "int32")
    x = {"token_ids": tokens, "padding_mask": (np.arange(12) < 9) * np.ones((8, 1))}
    throughput = Throughput(4 * 12)
    history = model.fit(
        x, tokens, batch_size=4, shuffle=False, verbose=0, callbacks=[throughput]
    ).history
    assert set(history) == {
        *("loss", "gradient_norm", "gradient_noise_scale", "gradient_signal"),
        *("gradient_noise", "token_utilization", "tokens_per_second"),
    }
    assert history["token_utilization"] == [pytest.approx(0.75)]
    assert history["tokens_per_second"][0] > 0
    assert set(model.evaluate(x, tokens, verbose=0, return_dict=True)) == {"loss"}
