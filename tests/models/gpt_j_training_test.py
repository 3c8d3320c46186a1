"""`fit` of a GPT-J: the head in the loss, accumulation, what is logged."""

import functools

import keras
import numpy as np
import pytest

from star_keras.models import gpt_j_causal_lm
from tests.conftest import run_on_eight_devices

PLAIN = {
    "loss": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
}


# Adam divides by the gradient's size; this keeps it from making rounding errors
# of gradients that are almost zero as large as any step.
EPSILON = 1e-3


@pytest.fixture
def make_model(make_model):
    return functools.partial(make_model, num_layers=1)


def adam(learning_rate=1e-2):
    return keras.optimizers.Adam(
        learning_rate, epsilon=EPSILON, global_clipnorm=0.5, name="adam"
    )


def batch(rows=8, length=12, seed=0):
    """Packed rows of which a half is response and one is all padding."""
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


def fit(model, data, steps=3, callbacks=(), **compiled):
    """Steps on one batch; the loss of each and the other logs of the last."""
    compiled.setdefault("weighted_metrics", None)
    compiled.setdefault("optimizer", adam())
    model.compile(**compiled)
    model.preprocessor = None
    x, y, weights = data
    history = model.fit(
        x,
        y,
        sample_weight=weights,
        batch_size=len(y),
        epochs=steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history
    return np.array(history["loss"]), {k: v[-1] for k, v in history.items()}


def assert_same_weights(model, other, atol=1e-5):
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(
            np.asarray(one, "float32"),
            np.asarray(two, "float32"),
            atol=atol,
            err_msg=one.path,
        )


@pytest.fixture
def chunked(monkeypatch):
    """Makes the head run on few columns of the rows at a time."""
    whole = gpt_j_causal_lm.head_cross_entropy

    def in_chunks(*arguments, **kwargs):
        return whole(*arguments, **kwargs, max_logits=8 * 3 * 258)

    monkeypatch.setattr(gpt_j_causal_lm, "head_cross_entropy", in_chunks)


# === The head in the loss ===


def test_training_equals_that_with_a_loss_on_logits(make_model, chunked):
    plain, model = make_model(), make_model()
    expected, _ = fit(plain, batch(), **PLAIN)
    found, _ = fit(model, batch())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_same_weights(model, plain)


def test_mixed_precision_training_follows_that_with_a_loss_on_logits(
    make_model, chunked
):
    plain, model = (make_model(dtype="mixed_bfloat16") for _ in range(2))
    expected, _ = fit(plain, batch(), **PLAIN)
    found, _ = fit(model, batch())
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


def test_batch_without_weights_changes_nothing(make_model):
    x, y, weights = batch()
    model = make_model()
    losses, logs = fit(model, (x, y, 0 * weights), gradient_accumulation_steps=2)
    assert (losses == 0).all() and logs["gradient_norm"] == 0
    assert_same_weights(model, make_model(), atol=0)


def test_metrics_of_the_user_get_their_logits(make_model):
    model = make_model()
    _, logs = fit(model, batch(), weighted_metrics=["sparse_categorical_accuracy"])
    assert set(logs) == {"loss", "sparse_categorical_accuracy"}


def test_evaluate_and_predict_are_as_ever(make_model):
    x, y, weights = batch()
    model, plain = make_model(), make_model()
    for one, arguments in ((model, {"z_loss": 0.1}), (plain, PLAIN)):
        one.compile("adam", weighted_metrics=None, **arguments)
        one.preprocessor = None
    found, expected = (
        one.evaluate(
            x, y, sample_weight=weights, batch_size=8, verbose=0, return_dict=True
        )
        for one in (model, plain)
    )
    assert found == expected and set(found) == {"loss"}
    assert model.predict(x, batch_size=8, verbose=0).shape == (8, 12, 258)


def test_z_loss_makes_denominators_smaller(make_model):
    def log_denominator(z_loss):
        model = make_model()
        optimizer = keras.optimizers.Adam(0.03)
        losses, _ = fit(model, batch(), 10, optimizer=optimizer, z_loss=z_loss)
        logits = model.predict(batch()[0], verbose=0).astype("float64")
        return losses[0], np.abs(np.log(np.exp(logits).sum(-1))).mean()

    loss, without = log_denominator(0.0)
    with_z_loss, small = log_denominator(1.0)
    assert with_z_loss > loss + 1
    assert small < 0.7 * without


# === Accumulation ===


@pytest.mark.parametrize("parts", (2, 8))
def test_accumulated_parts_equal_the_big_batch(make_model, chunked, parts):
    """Parts weigh differently, and one of eight weighs nothing."""
    schedules = [
        keras.optimizers.schedules.ExponentialDecay(1e-2, 1, 0.5) for _ in range(2)
    ]
    big, parted = make_model(), make_model()
    expected, expected_logs = fit(big, batch(), optimizer=adam(schedules[0]))
    found, logs = fit(
        parted,
        batch(),
        optimizer=adam(schedules[1]),
        gradient_accumulation_steps=parts,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_same_weights(parted, big)
    assert int(parted.optimizer.iterations) == 3
    np.testing.assert_allclose(
        logs["gradient_norm"], expected_logs["gradient_norm"], rtol=1e-4
    )


def test_accumulation_with_gradient_checkpointing_and_dropout_trains(make_model):
    model = make_model(dropout=0.2, gradient_checkpointing=True)
    states = [np.array(v.value) for v in model.non_trainable_variables]
    losses, _ = fit(model, batch(), steps=10, gradient_accumulation_steps=4)
    assert losses[-1] < losses[0]
    assert len(states) == 3
    for before, after in zip(states, model.non_trainable_variables, strict=True):
        assert (before != after.value).any()


def test_checkpointed_accumulation_equals_the_big_batch(make_model):
    big, parted = make_model(), make_model(gradient_checkpointing=True)
    fit(big, batch())
    fit(parted, batch(), gradient_accumulation_steps=4)
    assert_same_weights(parted, big)


def test_regularizers_count_once(make_model):
    big, parted = make_model(), make_model()
    for model in (big, parted):
        model.lm_head.kernel.regularizer = keras.regularizers.L2(0.1)
    plain = make_model()
    plain.lm_head.kernel.regularizer = keras.regularizers.L2(0.1)
    expected, _ = fit(plain, batch(), **PLAIN)
    for model, parts in ((big, 1), (parted, 4)):
        losses, _ = fit(model, batch(), gradient_accumulation_steps=parts)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        assert_same_weights(model, plain)


def test_one_trace_for_all_steps(make_model):
    model = make_model()
    traces = []
    part_of_loss = model._part_of_loss
    object.__setattr__(
        model,
        "_part_of_loss",
        lambda *arguments: traces.append(1) or part_of_loss(*arguments),
    )
    fit(model, batch(), steps=5, gradient_accumulation_steps=2)
    # JAX may trace the body of a scan more than once, but not every step.
    assert 1 <= len(traces) <= 2


# === Logs ===


def test_gradient_norm_and_share_of_real_tokens_are_logged(make_model):
    x, y, weights = batch()
    model = make_model()
    before = [np.array(v.value) for v in model.trainable_variables]
    _, logs = fit(model, (x, y, weights), steps=1, optimizer=keras.optimizers.SGD(1.0))
    gradients = [
        b - np.array(v.value)
        for b, v in zip(before, model.trainable_variables, strict=True)
    ]
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
    np.testing.assert_allclose(logs["gradient_norm"], norm, rtol=1e-3)
    np.testing.assert_allclose(logs["real_token_share"], x["padding_mask"].mean())
    assert set(logs) == {"loss", "gradient_norm", "real_token_share"}


def test_figures_do_not_have_the_scale_of_the_loss(make_model, chunked):
    plain, scaled = make_model(), make_model(dtype="mixed_float16")
    arguments = {"steps": 1, "gradient_accumulation_steps": 2}
    _, expected = fit(plain, batch(), **arguments)
    _, logs = fit(scaled, batch(), **arguments)
    assert type(scaled.optimizer).__name__ == "LossScaleOptimizer"
    for name in ("gradient_norm", "gradient_signal", "gradient_noise"):
        np.testing.assert_allclose(logs[name], expected[name], rtol=5e-2)


def test_same_rows_in_every_part_have_no_gradient_noise(make_model):
    x, y, weights = batch(rows=4)
    same = [
        {k: np.repeat(v[:1], 4, 0) for k, v in x.items()},
        *(np.repeat(v[:1], 4, 0) for v in (y, weights)),
    ]
    optimizer = keras.optimizers.SGD(0.0)
    _, logs = fit(
        make_model(), same, 1, optimizer=optimizer, gradient_accumulation_steps=4
    )
    np.testing.assert_allclose(
        logs["gradient_signal"], logs["gradient_norm"] ** 2, rtol=1e-4
    )
    assert abs(logs["gradient_noise"]) < 1e-3 * logs["gradient_signal"]


def test_gradient_noise_is_that_of_the_parts_own_gradients(make_model):
    """Against the formulas of the paper, for two parts of the same weight."""
    x, y, weights = batch(rows=2)
    weights = np.ones_like(weights)
    squares, model_logs = [], None
    for rows in ([0], [1]):
        part = [{k: v[rows] for k, v in x.items()}, y[rows], weights[rows]]
        _, logs = fit(make_model(), part, 1, optimizer=keras.optimizers.SGD(0.0))
        squares.append(logs["gradient_norm"] ** 2)
    _, model_logs = fit(
        make_model(),
        (x, y, weights),
        1,
        optimizer=keras.optimizers.SGD(0.0),
        gradient_accumulation_steps=2,
    )
    small, big = np.mean(squares), model_logs["gradient_norm"] ** 2
    np.testing.assert_allclose(
        model_logs["gradient_signal"], (24 * big - 12 * small) / 12, rtol=1e-3
    )
    np.testing.assert_allclose(
        model_logs["gradient_noise"], (small - big) / (1 / 12 - 1 / 24), rtol=1e-3
    )


def test_epoch_logs_averages_and_the_ratio_of_averages(make_model):
    model = make_model()
    model.compile("sgd", gradient_accumulation_steps=2)
    state = [v.value for v in model.metrics_variables]
    for signal, noise in ((1.0, 30.0), (3.0, 10.0)):
        logs, state = model._averages(
            {"gradient_signal": signal, "gradient_noise": noise}, state
        )
    assert logs["gradient_signal"] == 2 and logs["gradient_noise"] == 20
    assert logs["gradient_noise_scale"] == 10
    logs, _ = model._averages({"gradient_signal": -9.0, "gradient_noise": 1.0}, state)
    assert np.isnan(logs["gradient_noise_scale"])


# === Errors ===


def test_errors_say_what_to_use_instead(make_model):
    model = make_model()
    optimizer = keras.optimizers.Adam(1e-3, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="to `compile` instead"):
        model.compile(optimizer=optimizer)
    with pytest.raises(ValueError, match="Expected at least 1"):
        model.compile(gradient_accumulation_steps=0)
    with pytest.raises(ValueError, match="`gradient_accumulation_steps`.*Leave out"):
        model.compile(gradient_accumulation_steps=2, **PLAIN)
    with pytest.raises(ValueError, match="`z_loss`.*Leave out"):
        model.compile(z_loss=1e-4, weighted_metrics=["sparse_categorical_accuracy"])
    with pytest.raises(ValueError, match="8 rows cannot be split into .*=3 parts"):
        fit(model, batch(), gradient_accumulation_steps=3)


# === Several devices ===

PROGRAM = """
import star_keras
import json
import sys
import jax
import keras
import numpy as np
from star_keras.distribution import model_parallel
from star_keras.models import GPTJBackbone, GPTJCausalLM, gpt_j_causal_lm

whole = gpt_j_causal_lm.head_cross_entropy
gpt_j_causal_lm.head_cross_entropy = lambda *a, **k: whole(*a, **k, max_logits=4*3*64)
rng = np.random.default_rng(0)
tokens, labels = rng.integers(0, 64, (2, 8, 8), "int32")
weights = (rng.uniform(size=(8, 8)) < 0.4).astype("float32")

def run():
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM(GPTJBackbone(
        vocabulary_size=64, num_layers=1, num_heads=4, hidden_dim=32,
        intermediate_dim=64, rotary_dim=4))
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3, name="adam"),
        gradient_accumulation_steps=2)
    history = model.fit(
        {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}, labels,
        sample_weight=weights, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return model, history.history

model, logs = run()
keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
split_model, split_logs = run()
json.dump({
    "devices": jax.device_count(),
    "head": str(split_model.lm_head.kernel.value.sharding.spec),
    "logs": max(
        float(np.abs(np.divide(split_logs[k], logs[k]) - 1).max()) for k in logs),
    "weights": max(
        float(np.abs(a - b).max()) for a, b in zip(
            split_model.get_weights(), model.get_weights(), strict=True)),
}, sys.stdout)
"""


def test_chunks_and_accumulation_work_on_a_mesh():
    """Rows on two devices, the vocabulary on four: the result of one."""
    found = run_on_eight_devices(PROGRAM)
    assert "model" in found["head"]
    assert found["logs"] < 1e-3
    assert found["weights"] < 1e-5
