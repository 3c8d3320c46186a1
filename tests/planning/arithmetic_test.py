"""Parameters in matrix products, counted by hand and by XLA; plans of docs/tpu.md."""

import re

import jax
import keras
import numpy as np
import pytest

from star_keras.config import OptimizerConfig
from star_keras.distribution import model_parallel
from star_keras.models import load_causal_lm
from star_keras.planning import (
    CHIPS,
    GPUS,
    from_shapes,
    lower_train_step,
    plan,
    tpu_devices,
)
from star_keras.planning.arithmetic import (
    Arithmetic,
    Iteration,
    Weights,
    matrix_parameters,
    trained_parameters,
)
from star_keras.testing import tiny_causal_lm
from star_keras.training import compile_model
from star_keras.training.head_loss import head_cross_entropy
from tests.forks import ROOT

# Queries and outputs, keys and values of 2 of 4 heads, three matrices of the MLP, and
# two norms; the logits of 258 tokens.
BLOCK = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
HEAD = 32 * 258


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_counts_once_whether_tied_or_not(tied):
    model = tiny_causal_lm("llama3", num_layers=2, tie_word_embeddings=tied)
    assert matrix_parameters(model) == (2 * BLOCK, HEAD)
    # XLA's count of a forward pass, which has attention, norms and rotations too.
    rows, length = 4, 8

    def forward(trainable, other, token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": token_ids}
        return model.stateless_call(trainable, other, inputs)[0]

    lowered = jax.jit(forward).lower(
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
        np.ones((rows, length), "int32"),
    )
    counted = 2 * (2 * BLOCK + HEAD) * rows * length
    assert 1 < lowered.cost_analysis()["flops"] / counted < 1.1


@pytest.mark.parametrize("lora_rank", [None, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_frozen_weights_have_no_gradients_no_moments_and_no_flops(tied, lora_rank):
    model = tiny_causal_lm("llama3", num_layers=2, tie_word_embeddings=tied)
    compile_model(model, OptimizerConfig(lora_rank=lora_rank))
    model.optimizer.build(model.trainable_variables)
    rows, length = 4, 8
    trainable, other, moments = (
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
    )

    def loss(trainable, other, token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": token_ids}
        return model.stateless_call(trainable, other, inputs)[0].sum()

    step = jax.jit(jax.grad(loss)).lower(trainable, other, np.ones((rows, length), int))
    gradients = jax.eval_shape(jax.grad(loss), trainable, other, np.ones((1, 8), int))
    weights = Weights(model, "batch:1,model:1", False, 1)
    assert weights.gradients == sum(x.size * x.dtype.itemsize for x in gradients)
    assert weights.moments == sum(x.nbytes for x in moments)
    flops = 4 * sum(matrix_parameters(model)) + 2 * trained_parameters(model)
    counted = flops * rows * length
    # Attention, norms and rotations are XLA's alone.
    assert 0.95 < step.compile().cost_analysis()["flops"] / counted < 1.2


def step_of(batch_size, sequence_length):
    """An iteration of a training step alone."""
    return Iteration(
        batch_size=batch_size,
        sequence_length=sequence_length,
        steps=1,
        completions=0,
        prefix_length=0,
        prompt_length=1,
        max_new_tokens=1,
    )


def train_memory(lora_rank=None, length=8, splash=False):
    """Bytes of a training step of 4 rows, by arithmetic."""
    model = tiny_causal_lm("llama3", num_layers=2)
    compile_model(model, OptimizerConfig(lora_rank=lora_rank))
    model.optimizer.build(model.trainable_variables)
    gpu = GPUS["rtx4090-24gb"]
    sizes = Arithmetic(model, gpu, step_of(4, length), splash)
    weights = Weights(model, "batch:1,model:1", False, 1)
    return sizes.train_memory(weights, 1, 1, True, 1)


@pytest.mark.parametrize(("length", "queries"), ((1024, 1024), (4096, 128)))
def test_scores_of_long_rows_are_those_of_a_block(length, queries):
    all_of_it, others = (
        train_memory(length=length, splash=splash)["a block"]
        for splash in (False, True)
    )
    # 4 rows, 4 heads; scores in float32, and two more in the compute dtype.
    assert all_of_it - others == 4 * 4 * queries * length * 3 * 4


@pytest.mark.parametrize(
    ("family", "norms"),
    [("gpt_j", 1), ("gpt2", 2), ("llama3", 2), ("qwen3", 2), ("mixtral", 2)]
    + [("gemma", 2), ("gemma2", 4), ("gemma3", 4), ("phi3", 2), ("gpt_neo_x", 2)]
    + [("smollm3", 2), ("pythia", 2), ("general_llama", 2)],
)
def test_norms_of_hidden_states_are_those_of_a_block(family, norms):
    model = tiny_causal_lm(family)
    compile_model(model, OptimizerConfig())
    assert arithmetic_of(model).norms == norms


def arithmetic_of(model):
    return Arithmetic(model, GPUS["rtx4090-24gb"], step_of(4, 8), False)


def test_all_experts_keep_their_activations():
    model = tiny_causal_lm("mixtral")
    compile_model(model, OptimizerConfig())
    config = model.backbone.get_config()
    experts = config["num_experts"]
    assert experts > 1
    assert arithmetic_of(model).mlp == experts * config["intermediate_dim"]


@pytest.mark.slow
def test_the_compiler_of_tpus_adds_at_most_the_counted_activations_a_layer():
    pytest.importorskip("libtpu")
    devices = tpu_devices("v5e-8")
    work = step_of(32, 1024)

    def make(num_layers):
        model = tiny_causal_lm(
            "llama",
            num_layers=num_layers,
            hidden_dim=512,
            intermediate_dim=2048,
            num_query_heads=8,
            num_key_value_heads=4,
            dtype="mixed_bfloat16",
        )
        compile_model(model, OptimizerConfig())
        model.optimizer.build(model.trainable_variables)
        return model

    def memory(num_layers):
        """Bytes that the compiler allots, and those by arithmetic."""
        model = from_shapes(lambda: make(num_layers))
        keras.distribution.set_distribution(model_parallel("batch:8", devices=devices))
        try:
            lowered = lower_train_step(model, work.batch_size, work.sequence_length)
        finally:
            keras.distribution.set_distribution(None)
        sizes = Arithmetic(model, CHIPS["TPU v5 lite"], work, True)
        weights = Weights(model, "batch:8,model:1", False, 8)
        counted = sizes.train_memory(weights, 8, 1, False, 1)
        return (
            plan(lowered, devices[0]).memory["temporary"],
            counted["activations"] + counted["gradients"],
        )

    few, more = memory(2), memory(4)
    assert 0.7 < (more[0] - few[0]) / (more[1] - few[1]) < 1


def test_a_frozen_head_has_no_gradient_in_memory():
    counted = train_memory(None)["head"] - train_memory(2)["head"]
    assert counted == 4 * HEAD

    def loss(hidden_states, embedding, targets, weights):
        return head_cross_entropy(
            hidden_states, embedding.T, None, targets, weights, max_logits=4 * 258
        )

    def allotted(trained):
        """Temporary bytes, with gradients of the arguments of these numbers."""
        arrays = (np.ones((4, 8, 32), "float32"), np.ones((258, 32), "float32"))
        rows = np.ones((4, 8), "int32"), np.ones((4, 8), "float32")
        step = jax.jit(jax.grad(loss, argnums=trained)).lower(*arrays, *rows)
        return step.compile().memory_analysis().temp_size_in_bytes

    # Without the embedding's gradient, all is smaller than the gradient alone.
    assert allotted((0,)) < counted <= allotted((0, 1))


# Rows of a step, the kind of device, and whether it has splash attention.
POOLS = {
    "v3-128": (1024, "TPU v3", False),
    "v4-128": (512, "TPU v4", True),
    "v5e-256": (2048, "TPU v5 lite", True),
}
SETTINGS = re.compile(
    r"`(batch:(\d+),model:(\d+))` ZeRO(?:, (\d+) parts)?(?:, no checkpointing)?"
    r", (\d+) slots"
)


def test_the_shape_of_gpt_j_in_the_table_has_its_parameters():
    directory = ROOT / "tests" / "fixtures" / "plans" / "gpt_j_6b"
    model = from_shapes(lambda: load_causal_lm(str(directory), load_weights=False))
    assert model.count_params() == 6_050_882_784


@pytest.mark.parametrize(
    ("name", "layers", "width"), [("20B", 44, 6144), ("40B", 50, 8192)]
)
def test_plans_of_large_models_are_those_of_the_docs(name, layers, width):
    def make():
        directory = ROOT / "tests" / "fixtures" / "plans" / f"gpt_j_{name.lower()}"
        model = load_causal_lm(
            str(directory), dtype="mixed_bfloat16", load_weights=False
        )
        compile_model(model, OptimizerConfig(gradient_checkpointing=True))
        model.optimizer.build(model.trainable_variables)
        return model

    model = from_shapes(make)
    vocabulary = 50_400
    blocks = layers * (12 * width**2 + 7 * width)
    ends = 2 * vocabulary * width + vocabulary + 2 * width
    assert model.count_params() == blocks + ends
    page = (ROOT / "docs" / "tpu.md").read_text()
    assert f"{blocks + ends:,}" in page
    for topology, (rows, kind, splash) in POOLS.items():
        (line,) = re.findall(
            rf"^\| GPT-J shape, {name} \| {topology} \|(.*)$", page, re.M
        )
        mesh, *sizes = SETTINGS.search(line).groups(default="1")
        batch, split, parts, slots = map(int, sizes)
        work = Iteration(
            batch_size=rows,
            sequence_length=1024,
            steps=1,
            completions=7473,
            prefix_length=700,
            prompt_length=128,
            max_new_tokens=256,
        )
        chip = CHIPS[kind]
        sums = Arithmetic(model, chip, work, splash)
        weights = Weights(model, mesh, True, batch * split)
        checkpointing = "no checkpointing" not in line
        train = sums.train_memory(weights, batch, split, checkpointing, parts)
        train = sum(train.values())
        sample = sum(sums.sample_memory(weights, batch, split, slots).values())
        assert max(train, sample) <= 0.9 * chip.memory
        gib = [f"{size / 2**30:.1f}" for size in (train, sample, chip.memory)]
        assert "{} / {} of {}".format(*gib) in line
