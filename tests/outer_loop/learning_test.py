"""The loop teaches a real model: its accuracy on held-out problems rises."""

import numpy as np
import pytest

from star_keras import tasks
from star_keras.callbacks import StarIterationCallback
from star_keras.config import (
    OptimizerConfig,
    SamplingConfig,
    StarConfig,
    TrainingConfig,
)
from star_keras.models import load_causal_lm
from star_keras.training import compile_model


@pytest.mark.slow
def test_a_damaged_model_heals_by_its_own_right_rationales(tmp_path):
    """Noise in its weights costs the shipped model half of its sums."""
    model = load_causal_lm("arithmetic_base")
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            noise = generator.normal(size=variable.shape) * np.std(variable.value)
            variable.assign(variable.value + 0.25 * noise)
    compile_model(
        model, OptimizerConfig(learning_rate=1e-4, warmup_steps=5, beta_2=0.98)
    )
    config = StarConfig(
        sampling=SamplingConfig(
            few_shot=False, max_new_tokens=48, sample_batch_size=32
        ),
        training=TrainingConfig(batch_size=4, sequence_length=128, start_steps=30),
    )
    task = tasks.get("arithmetic", train_problems=100, eval_problems=100, digits=[2])
    star = StarIterationCallback(model, task, tmp_path / "run", config)
    star.fit(1, verbose=0)
    before, after = (line["eval_accuracy"] for line in star.metrics)
    # 53% and 90% on the machine that this was written on.
    assert before < 0.7
    assert after > before + 0.15
    assert star.metrics[1]["share_rationalized"] > 0.1
