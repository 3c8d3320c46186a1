"""LoRA merged into the weights, for the decoding of many tokens."""

import functools
from collections.abc import Iterator

import jax
import numpy as np


def merged_values(model) -> list:
    """Values of a model's variables with its LoRA adapters merged.

    A layer adds the product of its adapters to its kernel at each call. Here each
    kernel is the sum already, and its adapters have rank 0, so compiled programs
    do not contain them. The variables of the model do not change. Quantized layers
    keep their adapters, because their kernels could not hold the sum.

    Args:
        model: A built Keras model.

    Returns:
        One array for each of `model.variables`; see `with_variables`. A merged kernel
        has the dtype and the sharding of its variable.

    Reference:
        [LoRA](https://arxiv.org/abs/2106.09685), section 4.1.
    """
    values = {id(v): v.value for v in model.variables}
    for kernel, first, second, scale in _adapters(model):
        values[id(kernel)] = _merge(
            kernel.value,
            first.value,
            second.value,
            scale,
            sharding=kernel.value.sharding,
        )
        for adapter in (first, second):
            values[id(adapter)] = np.zeros(_without_rank(adapter, first), "float32")
    return [values[id(v)] for v in model.variables]


def merged_shapes(model, shapes: list[jax.ShapeDtypeStruct]) -> list:
    """The shapes of `merged_values`.

    Args:
        model: A built Keras model. Its variables need no values.
        shapes: One for each of `model.variables`.
    """
    adapters = {}
    for _, first, second, _ in _adapters(model):
        adapters |= {id(x): _without_rank(x, first) for x in (first, second)}
    return [
        x.update(shape=adapters.get(id(v), x.shape))
        for v, x in zip(model.variables, shapes, strict=True)
    ]


def _adapters(model) -> Iterator[tuple]:
    """`(kernel, first, second, scale)` of each layer that LoRA adapts."""
    for layer in model._flatten_layers():
        if not getattr(layer, "lora_enabled", False) or layer.quantization_mode:
            continue
        for name in ("kernel", "embeddings"):
            if (first := getattr(layer, f"lora_{name}_a", None)) is not None:
                second = getattr(layer, f"lora_{name}_b")
                scale = layer.lora_alpha / layer.lora_rank
                yield getattr(layer, f"_{name}"), first, second, scale


def _without_rank(adapter, first):
    rank_axis = -1 if adapter is first else 0
    shape = list(adapter.shape)
    shape[rank_axis] = 0
    return tuple(shape)


@functools.partial(jax.jit, static_argnames="sharding")
def _merge(kernel, first, second, scale, *, sharding):
    product = jax.numpy.matmul(first, second, precision="highest")
    merged = kernel + (scale * product).astype(kernel.dtype)
    return jax.lax.with_sharding_constraint(merged, sharding)
