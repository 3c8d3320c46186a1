"""Cross-entropy from hidden states, with the language-model head inside."""

import functools

import jax
import jax.numpy as jnp
import keras
from jax import lax


def head_cross_entropy(
    hidden_states,
    kernel,
    bias,
    targets,
    weights,
    *,
    z_loss=0.0,
    max_logits=2**25,
):
    """Weighted sum of the cross-entropy of a head's logits.

    Where the logits on a device are more than `max_logits` numbers, they are made
    in chunks: tokens of weight zero are moved behind the others of their row,
    and chunks that hold nothing else are skipped. A chunk's gradients are
    computed along with its loss, so that no logits are kept or made again.

    Args:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        kernel: float tensor `(hidden_dim, vocabulary)`.
        bias: float tensor `(vocabulary,)`.
        targets: int tensor `(batch, length)`, the next tokens.
        weights: float tensor `(batch, length)`. Not differentiated.
        z_loss: float. Weight of the squared logarithm of the softmax's
            denominator, which keeps logits from drifting. Defaults to `0.0`.
        max_logits: int. Logits on a device at a time, rows and vocabulary being
            split over the distribution's devices. Defaults to `2**25`.

    Returns:
        A float32 scalar.

    Reference:
        [PaLM](https://arxiv.org/abs/2204.02311), section 5, for the z-loss.
    """
    batch, length = targets.shape
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size if distribution else 1
    columns = max(1, devices * max_logits // (batch * kernel.shape[-1]))
    arguments = hidden_states, kernel, bias, targets, weights
    if columns >= length:
        return _cross_entropy(*arguments, z_loss)
    num_chunks = -(-length // columns)
    return _chunked_cross_entropy(z_loss, num_chunks, *arguments)


def _cross_entropy(hidden_states, kernel, bias, targets, weights, z_loss):
    logits = (hidden_states @ kernel + bias).astype("float32")
    log_total = jax.nn.logsumexp(logits, axis=-1)
    # A comparison instead of an index: it works on a sharded vocabulary.
    chosen = jnp.arange(logits.shape[-1]) == targets[..., None]
    losses = log_total - jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
    if z_loss:
        losses = losses + z_loss * log_total**2
    return jnp.sum(losses * weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked_cross_entropy(z_loss, num_chunks, *arguments):
    return _forward(z_loss, num_chunks, *arguments)[0]


def _forward(z_loss, num_chunks, hidden_states, kernel, bias, targets, weights):
    batch, length = targets.shape
    # Row by row, so that rows on different devices stay there.
    order = jnp.argsort(weights == 0, axis=1, stable=True)
    padding = -length % num_chunks

    def split(x):  # (batch, length, ...) -> (chunks, batch, length of one, ...)
        extra = (1,) * (x.ndim - 2)
        x = jnp.take_along_axis(x, order.reshape(batch, length, *extra), axis=1)
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0) for _ in extra)))
        return jnp.moveaxis(x.reshape(batch, num_chunks, -1, *x.shape[2:]), 1, 0)

    def add(sums, chunk):
        hidden_states, targets, weights = chunk
        loss, gradients = jax.value_and_grad(_cross_entropy, argnums=(0, 1, 2))(
            hidden_states, kernel, bias, targets, weights, z_loss
        )
        return jax.tree.map(jnp.add, sums, (loss, *gradients[1:])), gradients[0]

    def skip(sums, chunk):
        return sums, jnp.zeros_like(chunk[0])

    sums = (
        jnp.zeros((), "float32"),
        jnp.zeros_like(kernel, dtype="float32"),
        jnp.zeros_like(bias, dtype="float32"),
    )
    (loss, kernel_gradient, bias_gradient), gradient = lax.scan(
        lambda sums, chunk: lax.cond(jnp.any(chunk[2] != 0), add, skip, sums, chunk),
        sums,
        (split(hidden_states), split(targets), split(weights)),
    )
    gradient = jnp.moveaxis(gradient, 0, 1).reshape(batch, length + padding, -1)
    back = jnp.argsort(order, axis=1)
    gradient = jnp.take_along_axis(gradient, back[..., None], axis=1)
    gradients = gradient, kernel_gradient, bias_gradient
    # Sums over all tokens may be too large for float16 until they are scaled.
    dtypes = [jnp.zeros((), x.dtype) for x in (hidden_states, kernel, bias)]
    return loss, (gradients, dtypes)


def _backward(z_loss, num_chunks, residuals, scale):
    scaled = [(scale * g).astype(d.dtype) for g, d in zip(*residuals, strict=True)]
    return *scaled, None, None


_chunked_cross_entropy.defvjp(_forward, _backward)
