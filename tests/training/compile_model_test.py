import keras
import keras_hub
import numpy as np
import pytest

from star_keras.config import OptimizerConfig
from star_keras.training import compile_model


@pytest.fixture(scope="module")
def gpt2():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
        dropout=0.0,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def test_settings_reach_a_gpt_j(make_model):
    model = make_model(num_layers=1)
    config = OptimizerConfig(
        learning_rate=1e-3,
        warmup_steps=10,
        lr_schedule="linear",
        hold_steps=5,
        decay_steps=20,
        z_loss=0.1,
        gradient_checkpointing=True,
    )
    compile_model(model, config)
    rates = []
    for step in (0, 5, 10, 15, 25, 99):
        model.optimizer.iterations.assign(step)
        rates.append(float(model.optimizer.learning_rate))
    expected = np.array([0, 0.5, 1, 1, 0.55, 0.1]) * 1e-3
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert model.z_loss == 0.1
    assert model.gradient_checkpointing


def test_low_rank_adapters_are_all_that_is_trained(make_model):
    model = make_model(num_layers=1)
    compile_model(model, OptimizerConfig(lora_rank=2))
    paths = [v.path for v in model.trainable_variables]
    assert len(paths) == 4
    assert all("self_attention" in path and "lora_kernel" in path for path in paths)


def test_adapters_stay_when_a_model_is_compiled_again(make_model):
    model = make_model(num_layers=1)
    compile_model(model, OptimizerConfig(lora_rank=2))
    paths = [v.path for v in model.trainable_variables]
    compile_model(model, OptimizerConfig(lora_rank=2, learning_rate=1e-3))
    assert [v.path for v in model.trainable_variables] == paths
    for rank in (None, 4):
        with pytest.raises(ValueError, match="`lora_rank`. Expected 2, the rank of"):
            compile_model(model, OptimizerConfig(lora_rank=rank))


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("gradient_accumulation_steps", 2),
        ("z_loss", 1e-4),
        ("gradient_checkpointing", True),
    ),
)
def test_settings_of_the_training_step_are_refused_for_a_stock_model(gpt2, name, value):
    message = rf"`{name}`.*for a GPT2CausalLM.*={value}\. It needs .*packed_causal_lm"
    with pytest.raises(ValueError, match=message):
        compile_model(gpt2, OptimizerConfig(**{name: value}))


def test_loss_of_another_model_is_the_mean_over_the_weighted_tokens(gpt2):
    compile_model(gpt2)
    rng = np.random.default_rng(0)
    token_ids, labels = rng.integers(0, 30, (2, 2, 8), "int32")
    x = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    weights = np.zeros((2, 8), "float32")
    weights[0, 3:5], weights[1, 7] = 1, 0.5
    logits = gpt2.predict_on_batch(x).astype("float64")
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
    expected = (losses * weights).sum() / weights.sum()
    found = gpt2.train_on_batch(x, labels, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
