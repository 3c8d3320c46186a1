import keras
import numpy as np
import pytest

from star_keras.testing import tiny_causal_lm
from star_keras.training.dataset import feed_token_ids

LENGTHS = (12, 7)


@pytest.fixture(scope="module")
def trained_by_keras_hub():
    """Loss and weights of the stock Mixtral after a step on padded rows."""
    return train(tiny_causal_lm("mixtral", packed=False, router_aux_loss_coef=2.0))


def train(model, loss=None, **options):
    feed_token_ids(model)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss=loss
        or keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=[] if loss is None else None,
        **options,
    )
    token_ids, labels = np.random.default_rng(0).integers(1, 257, (2, 2, 12), "int32")
    mask = (np.arange(12) < np.array(LENGTHS)[:, None]).astype("int32")
    x = {"token_ids": token_ids, "padding_mask": mask}
    loss = model.train_on_batch(x, labels, sample_weight=mask.astype("float32"))
    return np.ravel(loss)[0], [np.asarray(v) for v in model.trainable_variables]


@pytest.mark.parametrize("gradient_checkpointing", (False, True))
def test_the_load_of_mixtrals_experts_is_in_the_loss_without_padding(
    trained_by_keras_hub, gradient_checkpointing
):
    model = tiny_causal_lm("mixtral", router_aux_loss_coef=2.0)
    loss, weights = train(
        model, loss="auto", gradient_checkpointing=gradient_checkpointing
    )
    expected, expected_weights = trained_by_keras_hub
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    without = tiny_causal_lm("mixtral", router_aux_loss_coef=0.0)
    assert expected - train(without, loss="auto")[0] > 1


def test_mixtrals_router_tells_experts_apart_in_bfloat16():
    # Their logits are below 0.01: in bfloat16 all probabilities are 1/4.
    exact = tiny_causal_lm("mixtral")
    exact.set_weights(
        [
            w * (1e-3 if "sparse_feedforward" in v.path else 1)
            for v, w in _weights(exact)
        ]
    )
    narrow = tiny_causal_lm("mixtral", dtype="bfloat16")
    narrow.set_weights([w for _, w in _weights(exact)])
    token_ids = np.random.default_rng(0).integers(1, 257, (1, 48), "int32")
    x = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    one, other = (np.asarray(model(x), "float32")[0] for model in (exact, narrow))
    errors = np.abs(one - other).max(axis=-1)
    assert np.median(errors) < 0.3 < np.std(one)


def _weights(model):
    return zip(model.weights, model.get_weights(), strict=True)
