"""Memory and time of an iteration by arithmetic, without compiling."""

import dataclasses
import math

import jax
from jax import numpy as jnp

from star_keras.distribution import model_parallel
from star_keras.models.attention_in_blocks import queries_at_once
from star_keras.models.forward import cache_shapes
from star_keras.planning.chips import GPUS
from star_keras.sampling.continuous_sampler import group_size
from star_keras.sampling.ring_cache import cache_size, prefix_size, prompt_size
from star_keras.training.head_loss import MAX_LOGITS, MAX_LOGITS_OF_TPUS

# Share of the peak that compiled training steps reach, see docs/tpu.md.
_SHARE_OF_PEAK = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iteration:
    """The work of an iteration.

    Args:
        batch_size: int. Rows a training step.
        sequence_length: int. Tokens a row.
        steps: int. Training steps.
        completions: int. Completions sampled.
        prefix_length: int. Tokens of the few-shot prompt, 0 without one.
        prompt_length: int. Tokens of a problem's own prompt.
        max_new_tokens: int. Tokens of a completion. All count as that long.
    """

    batch_size: int
    sequence_length: int
    steps: int
    completions: int
    prefix_length: int
    prompt_length: int
    max_new_tokens: int


def matrix_parameters(model) -> tuple[int, int]:
    """Parameters in matrix products: of the blocks, and of the head.

    Each stands for 2 FLOPs a token forward and 2 backward, and for 2 more if it is
    trained, see `trained_parameters`. The embedding's rows are read, not multiplied. A
    tied table is the head's matrix too, and counts as such.

    Args:
        model: A `PackedCausalLM`, with values or without.

    Returns:
        The numbers of both. That of the blocks has their norms and biases in it.
    """
    backbone = model.backbone
    blocks = sum(x.count_params() for x in backbone.transformer_layers)
    return blocks, backbone.vocabulary_size * backbone.get_config()["hidden_dim"]


def trained_parameters(model) -> int:
    """Those of `matrix_parameters` that have gradients, with LoRA the adapters."""
    sizes = [
        math.prod(v.shape)
        for block in model.backbone.transformer_layers
        for v in block.trainable_variables
    ]
    return sum(sizes) + trained_head_parameters(model)


def trained_head_parameters(model) -> int:
    """The head's of `matrix_parameters`, 0 if it is frozen."""
    head = matrix_parameters(model)[1]
    trained = any(math.prod(v.shape) == head for v in model.trainable_variables)
    return head if trained else 0


class Weights:
    """Bytes of a model's variables on one device of a mesh.

    Args:
        model: A compiled `PackedCausalLM`, its optimizer built.
        mesh: string, e.g. `"batch:2,model:4"`.
        zero: bool. See `model_parallel`.
        num_devices: int. Devices of the mesh.

    Raises:
        ValueError: if a weight does not divide, or its layout is not known.
    """

    def __init__(self, model, mesh, zero, num_devices):
        # Layouts are read alone: the devices need not be there.
        devices = jax.devices()[:1] * num_devices
        plain = model_parallel(mesh, devices=devices)
        split = model_parallel(mesh, zero=zero, devices=devices)
        compute = jnp.dtype(model.compute_dtype).itemsize
        trainable = model.trainable_variables
        self.weights = sum(_bytes(v, split) for v in model.variables)
        self.moments = sum(_bytes(v, split) for v in model.optimizer.variables)
        self.gradients = sum(_bytes(v, split) for v in trainable)
        # In the compute dtype, not split over `batch`.
        self.gathered = sum(
            _bytes(v, plain, compute if len(v.shape) > 1 else None)
            for v in model.variables
        )
        # What `batch` adds up: the gradients of the plain layout.
        self.summed = sum(_bytes(v, plain) for v in trainable)
        # Samplers keep the training's weights beside their own.
        differ = zero or model.variable_dtype != model.compute_dtype
        self.held = self.moments + (self.weights if differ else 0)
        plain.check_layouts()


def _bytes(variable, distribution, itemsize=None):
    """Bytes of a variable on one device."""
    mesh = distribution.device_mesh
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    axes = distribution.get_variable_layout(variable).axes
    pieces = math.prod(sizes[axis] for axis in axes if axis)
    itemsize = itemsize or jnp.dtype(variable.dtype).itemsize
    return math.prod(variable.shape) * itemsize // pieces


def _norms(block, hidden_dim):
    """Number of norms of hidden states in a block."""
    layers = block._flatten_layers()
    norms = (x for x in layers if "norm" in type(x).__name__.lower() and x.variables)
    return sum(x.variables[0].shape == (hidden_dim,) for x in norms)


class Arithmetic:
    """Memory and time of a candidate, from the sizes of a model.

    Methods take the `Weights` on a mesh of `batch` times `split` devices, the
    `checkpointing` (`gradient_checkpointing`) and `parts` of a training step
    (`gradient_accumulation_steps`), and the `slots` of the sampler.

    Args:
        model: A compiled `PackedCausalLM`.
        chip: The `Chip`.
        iteration: The `Iteration`.
        splash: bool. Whether packed rows go through splash attention.
    """

    def __init__(self, model, chip, iteration, splash):
        backbone = model.backbone
        config = backbone.get_config()
        self.chip, self.iteration, self.splash = chip, iteration, splash
        self.on_gpu = chip in GPUS.values()
        self.max_logits = MAX_LOGITS if self.on_gpu else MAX_LOGITS_OF_TPUS
        self.item = jnp.dtype(model.compute_dtype).itemsize
        self.caches = cache_shapes(model)
        self.hidden = config["hidden_dim"]
        self.norms = _norms(backbone.transformer_layers[0], self.hidden)
        # All experts of Mixtral see all tokens.
        self.mlp = config["intermediate_dim"] * config.get("num_experts", 1)
        names = ("num_query_heads", "num_heads", "num_attention_heads")
        self.heads = next(config[name] for name in names if name in config)
        self.attended = self.heads * self.caches[0][1]
        self.vocabulary = backbone.vocabulary_size
        self.blocks, self.head = matrix_parameters(model)
        self.trained = trained_parameters(model)
        self.trained_head = trained_head_parameters(model)

    # === Memory ===

    def train_memory(self, weights, batch, split, checkpointing, parts):
        """dict. Bytes of a device in a training step, by use."""
        length = self.iteration.sequence_length
        rows = self.iteration.batch_size // batch // parts
        tokens = rows * length
        logits = min(self.max_logits, tokens * self.vocabulary // split)
        # One block at a time, forward and backward.
        block = 2 * tokens * (4 * self.hidden + 3 * (self.mlp + self.attended) // split)
        pairs = 0 if self.splash else queries_at_once(length) * length
        scores = rows * self.heads * pairs // split * (4 + 2 * self.item)
        kept = tokens * self.hidden * self.item
        if not checkpointing:
            kept = self._kept(tokens, split)
            if queries_at_once(length) == length:
                kept += scores
        return {
            "weights": weights.weights,
            "moments": weights.moments,
            "gradients": weights.gradients * (1 if parts == 1 else 2),
            "activations": len(self.caches) * kept,
            "a block": block * self.item + scores,
            "logits": logits * (2 * 4 + self.item),
            # The head and its gradient if it is trained, whole over `batch`.
            "head": (self.head * self.item + self.trained_head * 4) // split,
        }

    def _kept(self, tokens, split):
        """Bytes that the backward pass of a block needs, without attention scores.

        Numbers of each size a token, from the programs of five models for v5e, see
        docs/tpu.md.
        """
        head_dim = self.caches[0][1]
        # Heads stand in tiles of 128.
        tiles = self.attended * -(-head_dim // 128) * 128 // head_dim
        whole = (3 * self.norms - 1) * self.hidden
        return tokens * self.item * (whole + (2 * self.mlp + 6 * tiles) // split)

    def sample_memory(self, weights, batch, split, slots):
        """dict. Bytes of a device while sampling, by use."""
        work = self.iteration
        length = cache_size(work.prompt_length + work.max_new_tokens)
        prefix = prefix_size(work.prefix_length) if work.prefix_length else 0
        caches = self.cache_bytes(slots, length, split) // batch
        # The last prompts stay, whole on each device of `batch`.
        group = group_size(slots, batch)
        prompts = self.cache_bytes(group, prompt_size(work.prompt_length), split)
        # Prompts are as long as the caches when they enter them. Caches that grow are
        # copied.
        entering = self.cache_bytes(group, length, split)
        logits = 2 * 4 * slots * self.vocabulary // (batch * split)
        return {
            "weights": weights.gathered,
            "caches": caches,
            "prefix": self.cache_bytes(1, prefix, split),
            "prompts": prompts,
            "held for training": weights.held,
            "temporary": max(entering, caches, logits),
        }

    def cache_bytes(self, rows, length, split):
        """Bytes of a cache on a device, its heads split where they divide."""
        return sum(
            2
            * rows
            * heads
            * length
            * size
            * self.item
            // (split if heads % split == 0 else 1)
            for heads, size in self.caches
        )

    # === Time ===

    def step_seconds(self, weights, batch, split, zero, checkpointing, parts):
        """float. Seconds of a training step."""
        work, chip = self.iteration, self.chip
        tokens = work.batch_size * work.sequence_length
        # Forward, backward and the gradients of the trained ones, 2 each. The head is
        # not computed again.
        again = 1 if checkpointing else 0
        flops = (4 + 2 * again) * self.blocks + 4 * self.head + 2 * self.trained
        # Two products of queries and keys; the kernel skips those after a token.
        pairs = work.sequence_length * (1 if self.splash else 2)
        flops += (6 + 2 * again) * len(self.caches) * pairs * self.attended
        seconds = tokens * flops / (batch * split) / (_SHARE_OF_PEAK * chip.flops)
        # Each part adds its gradients up.
        state = weights.weights + weights.moments + parts * weights.gradients
        seconds += 2 * state / chip.bandwidth
        share = (batch - 1) / batch
        if zero:  # gathered forward and backward, then gradients scattered
            sent = parts * share * (2 * weights.gathered + weights.summed)
        else:
            sent = 2 * share * weights.summed
        hidden = tokens // batch * self.hidden * self.item
        sent += 6 * len(self.caches) * 2 * hidden * (split - 1) / split
        return seconds + sent / chip.link_bandwidth

    def sample_seconds(self, weights, batch, split, slots):
        """Seconds of the prefill of a prompt, and of a decoding step."""
        work, chip = self.iteration, self.chip
        sent = 4 * len(self.caches) * self.hidden * self.item * (split - 1) / split
        flops = 2 * self.blocks * work.prompt_length / (batch * split)
        prefill = flops / (_SHARE_OF_PEAK * chip.flops)
        # All devices of `batch` get the caches of a prompt, which one computes.
        caches = self.cache_bytes(1, work.prompt_length, split)
        exchanged = work.prompt_length * sent + (batch - 1) * caches
        prefill += exchanged / batch / chip.link_bandwidth
        memory = self.sample_memory(weights, batch, split, slots)
        read = memory["weights"] + memory["caches"] + memory["prefix"]
        flops = 2 * (self.blocks + self.head) * slots
        token = max(read / chip.bandwidth, flops / (batch * split) / chip.flops)
        return prefill, token + slots / batch * sent / chip.link_bandwidth
