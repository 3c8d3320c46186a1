"""`fit` of a GPT-J: the head in the loss, packing, accumulation, metrics."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from star_keras import testing
from star_keras.training import objectives
from star_keras.training.gradient_noise import gradient_noise_scale

PLAIN = {
    "loss": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
}
tiny_gpt_j = functools.partial(testing.tiny_gpt_j, num_layers=1)


def adam():
    return keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(1e-2, 1, 0.5),
        # A smaller one lets rounding errors of gradients near zero make large steps.
        epsilon=1e-3,
        global_clipnorm=0.5,
        name="adam",
    )


def still():
    """An optimizer that leaves the weights as they are."""
    return keras.optimizers.SGD(0.0)


def batch(rows=8, length=12, seed=0):
    """Packed rows. About half of the tokens are trained on; the last row is padding."""
    rng = np.random.default_rng(seed)
    padding_mask = np.arange(length)[None] < rng.integers(4, length + 1, (rows, 1))
    padding_mask[-1] = False
    segment_ids = padding_mask * np.where(np.arange(length) < length // 2, 1, 2)
    x = {
        "token_ids": rng.integers(0, 258, (rows, length)),
        "padding_mask": padding_mask,
        "segment_ids": segment_ids,
        "positions": np.arange(length)[None] % (length // 2) * padding_mask,
    }
    weights = padding_mask * (rng.uniform(size=(rows, length)) < 0.5)
    weights = weights * rng.uniform(0.5, 2, (rows, 1))
    y = rng.integers(0, 258, (rows, length), "int32")
    return {k: v.astype("int32") for k, v in x.items()}, y, weights.astype("float32")


def rows_of(data, rows):
    x, y, weights = data
    return {k: v[rows] for k, v in x.items()}, y[rows], weights[rows]


def epochs(model, data, steps=1, batch_size=None):
    """One step an epoch, unless a batch size is given; the metrics of each epoch."""
    x, y, weights = data
    model.preprocessor = None
    return model.fit(
        x,
        y,
        sample_weight=weights,
        batch_size=batch_size or len(y),
        epochs=steps,
        shuffle=False,
        verbose=0,
    ).history


def fit(model, data, steps=3, **compiled):
    """Steps on one batch.

    Returns:
        The loss of each step, the metrics of the last step, the weights after it.
    """
    model.compile(**{"weighted_metrics": None, "optimizer": adam(), **compiled})
    history = epochs(model, data, steps)
    return SimpleNamespace(
        losses=np.array(history["loss"]),
        logs={name: values[-1] for name, values in history.items()},
        weights={v.path: np.asarray(v, "float32") for v in model.weights},
    )


def assert_same_training(found, expected, atol=1e-5):
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    assert_same_weights(found, expected, atol)


def assert_same_weights(found, expected, atol=1e-5):
    weights = zip(found.weights.items(), expected.weights.values(), strict=True)
    for (path, one), other in weights:
        np.testing.assert_allclose(one, other, atol=atol, err_msg=path)


@pytest.fixture
def chunked(monkeypatch):
    """Makes the head run on few columns of the rows at a time; counts its traces."""
    whole = objectives.head_cross_entropy
    traces = []

    def in_chunks(*arguments, **kwargs):
        traces.append(1)
        return whole(*arguments, **kwargs, max_logits=8 * 3 * 258)

    monkeypatch.setattr(objectives, "head_cross_entropy", in_chunks)
    return traces


@pytest.fixture(scope="module")
def whole():
    """Training on whole batches, with all logits at once."""
    return fit(tiny_gpt_j(), batch())


# === The loss ===


def test_training_equals_that_with_a_loss_on_logits(whole, chunked):
    plain = fit(tiny_gpt_j(), batch(), **PLAIN)
    assert_same_training(whole, plain)
    assert_same_training(fit(tiny_gpt_j(), batch()), plain)


def test_loss_is_the_mean_over_the_weighted_tokens():
    x, y, weights = data = batch()
    model = tiny_gpt_j()
    model.preprocessor = None
    logits = model.predict_on_batch(x).astype("float64")
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, y[..., None], -1)[..., 0]
    expected = (losses * weights).sum() / weights.sum()
    found = fit(model, data, steps=1)
    np.testing.assert_allclose(found.losses, [expected], rtol=1e-5)


def test_packed_rows_leave_the_same_weights_as_the_rows_unpacked():
    """Three sequences in one row or in three rows: one gradient step."""
    lengths = (4, 6, 2)
    rng = np.random.default_rng(0)
    token_ids, labels = rng.integers(0, 258, (2, 1, 12), "int32")
    segment_ids = np.repeat([1, 2, 3], lengths)[None]
    packed = {
        "token_ids": token_ids,
        "padding_mask": np.ones((1, 12), "int32"),
        "segment_ids": segment_ids,
        "positions": np.concatenate([np.arange(n) for n in lengths])[None],
    }
    rows = np.zeros((2, 3, 12), "int32")
    weights = np.zeros((3, 12), "float32")
    for i, length in enumerate(lengths):
        for row, source in zip(rows[:, i], (token_ids, labels), strict=True):
            row[:length] = source[segment_ids == i + 1]
        weights[i, :length] = 1
    unpacked = {"token_ids": rows[0], "padding_mask": weights.astype("int32")}
    one_row, three_rows = (
        fit(tiny_gpt_j(), data, steps=1)
        for data in (
            (packed, labels, np.ones((1, 12), "float32")),
            (unpacked, rows[1], weights),
        )
    )
    assert_same_training(one_row, three_rows)


def test_mixed_precision_training_follows_that_with_a_loss_on_logits(chunked):
    plain, model = (tiny_gpt_j(dtype="mixed_bfloat16") for _ in range(2))
    expected = fit(plain, batch(), **PLAIN).losses
    np.testing.assert_allclose(fit(model, batch()).losses, expected, rtol=2e-2)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


def test_batch_without_weights_changes_nothing():
    x, y, weights = batch()
    model = tiny_gpt_j()
    before = {v.path: np.array(v.value) for v in model.weights}
    found = fit(model, (x, y, 0 * weights), gradient_accumulation_steps=2)
    assert (found.losses == 0).all() and found.logs["gradient_norm"] == 0
    assert_same_weights(found, SimpleNamespace(weights=before), atol=0)


def test_metrics_of_the_user_get_their_logits():
    metrics = ["sparse_categorical_accuracy"]
    logs = fit(tiny_gpt_j(), batch(), weighted_metrics=metrics).logs
    assert set(logs) == {"loss", "sparse_categorical_accuracy"}


def test_evaluate_and_predict_are_as_ever():
    x, y, weights = batch()
    model, plain = tiny_gpt_j(), tiny_gpt_j()
    for one, arguments in ((model, {"z_loss": 0.1}), (plain, PLAIN)):
        one.compile("adam", weighted_metrics=None, **arguments)
        one.preprocessor = None
    found, expected = (
        one.evaluate(
            x, y, sample_weight=weights, batch_size=8, verbose=0, return_dict=True
        )
        for one in (model, plain)
    )
    assert found == pytest.approx(expected) and set(found) == {"loss"}
    assert model.predict(x, batch_size=8, verbose=0).shape == (8, 12, 258)


def test_evaluation_weighs_tokens_and_not_batches():
    x, y, weights = batch()
    model = tiny_gpt_j(dropout=0.5)
    model.preprocessor = None
    one, several = (
        model.evaluate(x, y, sample_weight=weights, batch_size=size, verbose=0)
        for size in (8, 2)
    )
    assert several == pytest.approx(one)  # no dropout either
    logits = model.predict(x, batch_size=8, verbose=0).astype("float64")
    log_total = np.log(np.exp(logits).sum(axis=-1))
    chosen = np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    assert one == pytest.approx(np.average(log_total - chosen, weights=weights))


def test_z_loss_makes_denominators_smaller():
    def log_denominator(z_loss):
        model = tiny_gpt_j()
        optimizer = keras.optimizers.Adam(0.03)
        losses = fit(model, batch(), 10, optimizer=optimizer, z_loss=z_loss).losses
        logits = model.predict(batch()[0], verbose=0).astype("float64")
        return losses[0], np.abs(np.log(np.exp(logits).sum(-1))).mean()

    loss, without = log_denominator(0.0)
    with_z_loss, small = log_denominator(1.0)
    assert with_z_loss > loss + 1
    assert small < 0.7 * without


# === Accumulation ===


@pytest.mark.parametrize("parts", (2, 8))
def test_accumulated_parts_equal_the_whole_batch(whole, chunked, parts):
    """Parts weigh differently, and one of eight weighs nothing."""
    model = tiny_gpt_j()
    found = fit(model, batch(), gradient_accumulation_steps=parts)
    assert_same_training(found, whole)
    assert int(model.optimizer.iterations) == 3
    np.testing.assert_allclose(
        found.logs["gradient_norm"], whole.logs["gradient_norm"], rtol=1e-4
    )
    # JAX may trace the body of a scan more than once, but not in every step.
    assert 1 <= len(chunked) <= 2


def test_checkpointed_accumulation_equals_the_whole_batch(whole):
    model = tiny_gpt_j(gradient_checkpointing=True)
    found = fit(model, batch(), gradient_accumulation_steps=4)
    assert_same_training(found, whole)


def test_accumulation_with_gradient_checkpointing_and_dropout_trains():
    model = tiny_gpt_j(dropout=0.2, gradient_checkpointing=True)
    states = [np.array(v.value) for v in model.non_trainable_variables]
    losses = fit(model, batch(), steps=10, gradient_accumulation_steps=4).losses
    assert losses[-1] < losses[0]
    assert len(states) == 3
    for before, after in zip(states, model.non_trainable_variables, strict=True):
        assert (before != after.value).any()


def test_regularizers_count_once():
    def regularized(**arguments):
        model = tiny_gpt_j()
        model.lm_head.kernel.regularizer = keras.regularizers.L2(0.1)
        return fit(model, batch(), **arguments)

    plain = regularized(**PLAIN)
    assert_same_training(regularized(), plain)
    assert_same_training(regularized(gradient_accumulation_steps=4), plain)


# === Metrics ===


def test_gradient_norm_and_share_of_real_tokens_are_logged():
    x, _, _ = data = batch()
    model = tiny_gpt_j()
    before = [np.array(v.value, "float64") for v in model.trainable_variables]
    logs = fit(model, data, steps=1, optimizer=keras.optimizers.SGD(1.0)).logs
    gradients = [
        b - np.array(v.value)
        for b, v in zip(before, model.trainable_variables, strict=True)
    ]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    np.testing.assert_allclose(logs["gradient_norm"], norm, rtol=1e-3)
    np.testing.assert_allclose(logs["token_utilization"], x["padding_mask"].mean())
    assert set(logs) == {"loss", "gradient_norm", "token_utilization"}


def test_metrics_do_not_have_the_scale_of_the_loss(chunked):
    plain, scaled = tiny_gpt_j(), tiny_gpt_j(dtype="mixed_float16")
    expected, logs = (
        fit(model, batch(), steps=1, gradient_accumulation_steps=2).logs
        for model in (plain, scaled)
    )
    assert type(scaled.optimizer).__name__ == "LossScaleOptimizer"
    for name in ("gradient_norm", "gradient_signal", "gradient_noise"):
        np.testing.assert_allclose(logs[name], expected[name], rtol=5e-2)


def test_averages_leave_out_steps_that_the_optimizer_skips():
    def of_one_batch(scale, steps):
        optimizer = keras.optimizers.LossScaleOptimizer(still(), scale)
        model = tiny_gpt_j(dtype="mixed_float16")
        model.compile(optimizer, gradient_accumulation_steps=2)
        data = rows_of(batch(), [0, 1] * steps)
        logs = epochs(model, data, batch_size=2)
        return {name: value for name, (value,) in logs.items()}

    plain = of_one_batch(2.0**15, 1)
    assert plain["share_skipped"] == 0
    # The first gradients overflow; the scale of the loss is halved each time.
    logs = of_one_batch(2.0**24, 8)
    assert 0 < logs["share_skipped"] < 1
    for name in ("gradient_norm", "gradient_signal", "gradient_noise"):
        np.testing.assert_allclose(logs[name], plain[name], rtol=1e-2)
    # A norm of 0 would say that the training has converged.
    logs = of_one_batch(2.0**24, 1)
    assert logs["share_skipped"] == 1 and np.isfinite(logs["loss"])
    for name in ("gradient_norm", "gradient_signal", "gradient_noise_scale"):
        assert np.isnan(logs[name])


def test_same_rows_in_every_part_have_no_gradient_noise():
    same = rows_of(batch(rows=4), [0, 0, 0, 0])
    logs = fit(
        tiny_gpt_j(), same, 1, optimizer=still(), gradient_accumulation_steps=4
    ).logs
    np.testing.assert_allclose(
        logs["gradient_signal"], logs["gradient_norm"] ** 2, rtol=1e-4
    )
    assert abs(logs["gradient_noise"]) < 1e-3 * logs["gradient_signal"]


def test_gradient_noise_is_that_of_the_parts_own_gradients():
    """Against the formulas of the paper, for two parts of the same weight."""
    x, y, weights = batch(rows=2)
    both = x, y, np.ones_like(weights)
    model = tiny_gpt_j()
    model.compile(still())
    norms = [epochs(model, rows_of(both, [row]))["gradient_norm"][0] for row in (0, 1)]
    logs = fit(
        tiny_gpt_j(), both, 1, optimizer=still(), gradient_accumulation_steps=2
    ).logs
    small, big = np.mean(np.square(norms)), logs["gradient_norm"] ** 2
    np.testing.assert_allclose(
        logs["gradient_signal"], (24 * big - 12 * small) / 12, rtol=1e-3
    )
    np.testing.assert_allclose(
        logs["gradient_noise"], (small - big) / (1 / 12 - 1 / 24), rtol=1e-3
    )


def test_epoch_logs_averages_of_its_steps_and_their_noise_scale():
    data = batch()
    model = tiny_gpt_j()
    model.compile(still(), gradient_accumulation_steps=2)
    first, second = (epochs(model, rows_of(data, rows)) for rows in ([0, 1], [2, 3]))
    both = epochs(model, rows_of(data, [0, 1, 2, 3]), batch_size=2)
    for name in ("gradient_norm", "gradient_signal", "gradient_noise"):
        assert first[name] != second[name]
        expected = np.mean([first[name], second[name]])
        np.testing.assert_allclose(both[name], [expected], rtol=1e-5)
    (signal,), (noise,) = both["gradient_signal"], both["gradient_noise"]
    assert signal > 0
    np.testing.assert_allclose(
        both["gradient_noise_scale"], [gradient_noise_scale(signal, noise)], rtol=1e-5
    )


# === Errors ===


def test_errors_say_what_to_use_instead():
    model = tiny_gpt_j()
    optimizer = keras.optimizers.Adam(1e-3, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="to `compile` instead"):
        model.compile(optimizer=optimizer)
    with pytest.raises(ValueError, match="an integer of at least 1"):
        model.compile(gradient_accumulation_steps=0)
    with pytest.raises(ValueError, match="`gradient_accumulation_steps`.*Leave out"):
        model.compile(gradient_accumulation_steps=2, **PLAIN)
    with pytest.raises(ValueError, match="`z_loss`.*Leave out"):
        model.compile(z_loss=1e-4, weighted_metrics=["sparse_categorical_accuracy"])
    with pytest.raises(ValueError, match="8 rows cannot be split into .*=3 parts"):
        fit(model, batch(), gradient_accumulation_steps=3)
