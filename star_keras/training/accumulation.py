"""Gradients of a batch in parts, one after the other, as if it were whole."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import keras

from star_keras.training import gradient_noise


def accumulated_gradients(
    gradients_of: Callable,
    weight_of: Callable,
    trainable: list,
    non_trainable: list,
    batch: tuple,
    num_parts: int,
    logged: Sequence[str] = (),
):
    """Loss and gradients of a batch.

    Args:
        gradients_of: Callable `(non_trainable, part) -> ((_, (loss, sums,
            non_trainable)), gradients)`, the part's share of all of them. `sums` is a
            dict of float32 scalars.
        weight_of: Callable `part -> float32 scalar`: the weight of a part or a batch.
        trainable: List of arrays. Values of the trainable variables.
        non_trainable: List of arrays. Values of the other variables.
        batch: Arrays `(batch, ...)` in tuples and dicts.
        num_parts: int. Number of parts, at least 2.
        logged: The keys of `sums`.

    Returns:
        `(loss, sums, gradients, non_trainable, statistics)`: those of the batch, and
        the dict of `gradient_signal` and `gradient_noise`, empty over several slices.

    Raises:
        ValueError: if `num_parts` does not divide the batch.
    """
    parts = _split(batch, num_parts)
    total_weight = weight_of(batch)
    divisor = jnp.where(total_weight == 0, 1.0, total_weight)

    # The norms of each part would send its gradients over the slow links, where the
    # compiler sums the gradients of all parts once.
    with_statistics = not _over_slices()

    def accumulate(carry, part):
        total, square, non_trainable = carry
        (_, (loss, sums, non_trainable)), gradients = gradients_of(non_trainable, part)
        total = jax.tree.map(jnp.add, total, (gradients, loss, sums))
        if with_statistics:
            # |the part's own mean gradient|^2, weighted by its share of the batch.
            weight = weight_of(part)
            square += squared_norm(gradients) * jnp.where(
                weight == 0, 0.0, divisor / weight
            )
        return (total, square, non_trainable), None

    zeros = (
        [jnp.zeros(v.shape, "float32") for v in trainable],
        0.0,
        dict.fromkeys(logged, 0.0),
    )
    (total, square, non_trainable), _ = jax.lax.scan(
        accumulate, (zeros, 0.0, non_trainable), parts
    )
    gradients, loss, sums = total
    gradients = [g.astype(v.dtype) for g, v in zip(gradients, trainable, strict=True)]
    if not with_statistics:
        return loss, sums, gradients, non_trainable, {}
    signal, noise = gradient_noise.gradient_statistics(
        square, squared_norm(gradients), num_parts, total_weight
    )
    statistics = {"gradient_signal": signal, "gradient_noise": noise}
    return loss, sums, gradients, non_trainable, statistics


def squared_norm(gradients: list):
    """Sum of the squares of all elements, a float32 scalar."""
    return sum(jnp.sum(g.astype("float32") ** 2) for g in gradients)


def _over_slices():
    distribution = keras.distribution.distribution()
    if distribution is None:
        return False
    mesh = distribution.device_mesh
    return dict(zip(mesh.axis_names, mesh.shape, strict=True)).get("slice", 1) > 1


def _split(batch, num_parts):
    """Split rows: `(batch, ...)` to `(parts, batch // parts, ...)`."""

    def split(x):
        if x.shape[0] % num_parts:
            raise ValueError(
                f"A batch of {x.shape[0]} rows cannot be split into "
                f"gradient_accumulation_steps={num_parts} parts. Use a batch size "
                f"that {num_parts} divides."
            )
        # Every part has rows of every device.
        return jnp.moveaxis(x.reshape(-1, num_parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)
