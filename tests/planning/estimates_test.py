"""Bounds of the steps of a Llama, tied and untied, compiled for a TPU."""

import keras
import pytest

from star_keras import planning
from star_keras.config import OptimizerConfig, SamplingConfig, TrainingConfig
from star_keras.distribution import model_parallel
from star_keras.planning.arithmetic import matrix_parameters
from star_keras.planning.estimates import plan_sampling, plan_training
from star_keras.testing import tiny_causal_lm
from star_keras.training import compile_model

TABLE = 4 * 32 * 258


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_bounds_have_the_head_of_a_tied_model_too(tied):
    pytest.importorskip("libtpu")
    device = planning.tpu_devices("v5e-4")[0]
    chip = planning.CHIPS[device.device_kind]
    model = tiny_causal_lm("llama3", tie_word_embeddings=tied)
    compile_model(model, OptimizerConfig())
    model.optimizer.build(model.trainable_variables)
    blocks, head = matrix_parameters(model)
    keras.distribution.set_distribution(
        model_parallel("batch:1,model:1", devices=[device])
    )
    try:
        train = plan_training(
            model, device, TrainingConfig(batch_size=2, sequence_length=64)
        )
        sample = plan_sampling(
            model,
            device,
            SamplingConfig(max_new_tokens=16, sample_batch_size=8),
            prefix_length=0,
            prompt_length=16,
        )
    finally:
        keras.distribution.set_distribution(None)
    flops = {
        "train": 6 * (blocks + head) * 2 * 64,
        "prefill": 2 * blocks * sample["prefill"]["tokens"],
        "decode": 2 * (blocks + head) * 8,
    }
    for name, found in {"train": train, **sample}.items():
        bound = found["flops_bound_seconds"] * chip.flops
        assert bound == pytest.approx(flops[name])
    # Only an embedding that is not the head's matrix is left out.
    decode = sample["decode"]
    read = decode["bandwidth_bound_seconds"] * chip.bandwidth
    unread = decode["memory"]["arguments"] - read
    assert unread == pytest.approx(0 if tied else TABLE)
