"""Cross-entropy of hidden states, with the language-model head inside."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from star_keras.distribution import current_mesh, first_device

MAX_LOGITS = 2**25
# A chunk reads and writes the gradient of the whole kernel. On a TPU that takes longer
# than the products of a small chunk.
MAX_LOGITS_OF_TPUS = 2**27


def head_cross_entropy(
    hidden_states,
    kernel,
    bias,
    targets,
    weights,
    *,
    soft_cap=None,
    z_loss=0.0,
    max_logits=None,
):
    """Weighted sum of the cross-entropy of a head's logits.

    More than `max_logits` logits on a device are computed in chunks. Within its row,
    a token of weight zero is moved behind the others, and chunks without any weight
    are skipped. Each chunk computes its loss and its gradients at once. No logits
    are kept for the backward pass, and none are computed twice.

    Args:
        hidden_states: float array `(batch, length, hidden_dim)`.
        kernel: float array `(hidden_dim, vocabulary_size)`.
        bias: float array `(vocabulary_size,)`, or `None`.
        targets: int array `(batch, length)`. The next tokens.
        weights: float array `(batch, length)`. Not differentiated.
        soft_cap: optional float. Logits become `soft_cap * tanh(logits / soft_cap)`.
        z_loss: float. Weight of the squared logarithm of the softmax's
            denominator, which keeps logits from drifting. Defaults to `0.0`.
        max_logits: optional int. Number of logits on a device at a time. Rows and
            vocabulary count as split over the devices of the current
            `keras.distribution`. Defaults to `MAX_LOGITS_OF_TPUS` on TPUs, else
            to `MAX_LOGITS`.

    Returns:
        A float32 scalar.

    Reference:
        [PaLM](https://arxiv.org/abs/2204.02311), section 5, for the z-loss.
    """
    num_chunks = _num_chunks(targets.shape, kernel, max_logits)
    arguments = hidden_states, kernel.T, bias, targets, weights
    if num_chunks == 1:
        return _cross_entropy(*arguments, soft_cap, z_loss)
    return _chunked_cross_entropy(soft_cap, z_loss, num_chunks, *arguments)


def head_log_probs(
    hidden_states,
    kernel,
    bias,
    targets,
    weights,
    *,
    soft_cap=None,
    max_logits=None,
):
    """Log-probabilities of the next tokens, for use without gradients.

    Computed in chunks like `head_cross_entropy`.

    Args:
        hidden_states, kernel, bias, targets, soft_cap, max_logits: See
            `head_cross_entropy`.
        weights: array `(batch, length)`. Not zero for the tokens that are wanted.

    Returns:
        float32 array `(batch, length)`, 0 for tokens of weight zero.
    """
    chunks = _Chunks(weights, _num_chunks(targets.shape, kernel, max_logits))

    def compute(chunk):
        return -_token_losses(chunk[0], kernel.T, bias, chunk[1], soft_cap, 0.0)

    def skip(chunk):
        return jnp.zeros(chunk[1].shape, "float32")

    log_probs = lax.map(
        lambda chunk: lax.cond(jnp.any(chunk[2] != 0), compute, skip, chunk),
        tuple(map(chunks.split, (hidden_states, targets, weights))),
    )
    return jnp.where(weights == 0, 0.0, chunks.join(log_probs))


def _num_chunks(shape, kernel, max_logits):
    """Number of chunks with at most `max_logits` logits on a device."""
    batch, length = shape
    if max_logits is None:
        on_tpu = first_device().platform == "tpu"
        max_logits = MAX_LOGITS_OF_TPUS if on_tpu else MAX_LOGITS
    current = current_mesh()
    devices = current.mesh.size if current else 1
    columns = max(1, devices * max_logits // (batch * kernel.shape[-1]))
    return 1 if columns >= length else -(-length // columns)


class _Chunks:
    """Tokens in chunks, those of weight zero last within their row.

    Args:
        weights: array `(batch, length)`.
        num_chunks: int. Number of chunks.
    """

    def __init__(self, weights, num_chunks):
        self.length, self.num_chunks = weights.shape[1], num_chunks
        # Sorted within rows, so that every row stays on its device.
        self.order = jnp.argsort(weights == 0, axis=1, stable=True)

    def split(self, x):
        """`(batch, length, ...)` to `(chunks, batch, length of one, ...)`."""
        x = self._take(x, self.order)
        padding = -self.length % self.num_chunks
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0) for _ in x.shape[2:])))
        x = x.reshape(x.shape[0], self.num_chunks, -1, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    def join(self, x):
        """The inverse of `split`."""
        x = jnp.moveaxis(x, 0, 1)
        x = x.reshape(x.shape[0], -1, *x.shape[3:])
        return self._take(x, jnp.argsort(self.order, axis=1))

    @staticmethod
    def _take(x, order):
        return jnp.take_along_axis(
            x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), 1
        )


# The head is a table of tokens from here on, `(vocabulary_size, hidden_dim)`, as in an
# embedding. On CPU its chunks take less time than those of a kernel, though a head that
# is not tied is copied once. On a TPU a tied table and its gradient are no
# longer copied into another order.


def _cross_entropy(hidden_states, table, bias, targets, weights, soft_cap, z_loss):
    losses = _token_losses(hidden_states, table, bias, targets, soft_cap, z_loss)
    return jnp.sum(losses * weights)


def _token_losses(hidden_states, table, bias, targets, soft_cap, z_loss):
    states = hidden_states.astype(table.dtype)
    logits = jnp.einsum("...h,vh->...v", states, table)
    if bias is not None:
        logits = logits + bias
    logits = logits.astype("float32")
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    log_total = jax.nn.logsumexp(logits, axis=-1)
    # A comparison, unlike an index, works on a sharded vocabulary.
    chosen = jnp.arange(logits.shape[-1]) == targets[..., None]
    losses = log_total - jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
    if z_loss:
        losses = losses + z_loss * log_total**2
    return losses


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _chunked_cross_entropy(soft_cap, z_loss, num_chunks, *arguments):
    return _forward(soft_cap, z_loss, num_chunks, *arguments)[0]


def _forward(soft_cap, z_loss, num_chunks, *arguments):
    current = current_mesh()
    axes = current.rows if current else ()
    if axes and len(arguments[0]) % current.parts(axes):
        axes = ()
    compute = functools.partial(_sums, soft_cap, z_loss, num_chunks, axes)
    if axes:
        rows, whole = PartitionSpec(axes), PartitionSpec()
        # Each device adds up its own rows. Left to the compiler, the gradient of the
        # table is exchanged after every chunk. `jit` for calls outside of one: JAX
        # runs a map over some of a mesh's axes only within it.
        compute = jax.jit(
            jax.shard_map(
                compute,
                mesh=current.mesh,
                in_specs=(rows, whole, whole, rows, rows),
                out_specs=(whole, (rows, whole, whole)),
                axis_names=set(axes),
                # The compiler splits the other axes, so their sums are not declared.
                check_vma=False,
            )
        )
    loss, gradients = compute(*arguments)
    # Sums over all tokens may overflow float16 before they are scaled.
    dtypes = jax.tree.map(lambda x: jnp.zeros((), x.dtype), arguments[:3])
    return loss, (gradients, dtypes)


def _sums(
    soft_cap,
    z_loss,
    num_chunks,
    axes,
    hidden_states,
    table,
    bias,
    targets,
    weights,
):
    """The loss, and the gradients of states, table and bias.

    Args:
        soft_cap, z_loss: See `head_cross_entropy`.
        num_chunks: int. Number of chunks of the rows of a device.
        axes: tuple of strings. Mesh axes that split the rows, `()` outside of
            `shard_map`. Loss and gradients of table and bias are summed over them.
        hidden_states, table, bias, targets, weights: See `head_cross_entropy`; the
            rows are those of a device.

    Returns:
        A float32 scalar, and a tuple of three arrays: of the shape and dtype of
        `hidden_states`, and in float32 of the shapes of `table` and `bias`.
    """
    chunks = _Chunks(weights, num_chunks)

    def add(sums, chunk):
        hidden_states, targets, weights = chunk
        loss, gradients = jax.value_and_grad(_cross_entropy, argnums=(0, 1, 2))(
            hidden_states, table, bias, targets, weights, soft_cap, z_loss
        )
        return jax.tree.map(jnp.add, sums, (loss, *gradients[1:])), gradients[0]

    def skip(sums, chunk):
        return sums, jnp.zeros_like(chunk[0])

    sums = (
        jnp.zeros((), "float32"),
        jnp.zeros_like(table, dtype="float32"),
        # Without a bias there is none to add up.
        jax.tree.map(lambda x: jnp.zeros_like(x, dtype="float32"), bias),
    )
    split = tuple(map(chunks.split, (hidden_states, targets, weights)))
    # All devices take the same branch: there may be an exchange within it.
    is_wanted = lax.psum(jnp.sum(split[2] != 0, axis=(1, 2)), axes) > 0
    sums, gradient = lax.scan(
        lambda sums, x: lax.cond(x[0], add, skip, sums, x[1]),
        sums,
        (is_wanted, split),
    )
    loss, table_gradient, bias_gradient = lax.psum(sums, axes)
    return loss, (chunks.join(gradient), table_gradient, bias_gradient)


def _backward(soft_cap, z_loss, num_chunks, residuals, scale):
    scaled = jax.tree.map(lambda g, d: (scale * g).astype(d.dtype), *residuals)
    return *scaled, None, None


_chunked_cross_entropy.defvjp(_forward, _backward)
