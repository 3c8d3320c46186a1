import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from star_keras import planning
from star_keras.distribution import model_parallel
from star_keras.training.head_loss import head_cross_entropy


def example(dtype="float32", length=13):
    """Hidden states, kernel, bias, targets, weights; two thirds weigh nothing."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(3, length)) * (rng.uniform(size=(3, length)) < 0.3)
    return (
        jnp.asarray(rng.normal(size=(3, length, 8)), dtype),
        jnp.asarray(rng.normal(size=(8, 11)), dtype),
        jnp.asarray(rng.normal(size=11), dtype),
        jnp.asarray(rng.integers(0, 11, (3, length)), "int32"),
        jnp.asarray(weights, "float32"),
    )


def plain(hidden_states, kernel, bias, targets, weights, z_loss=0.0):
    logits = (hidden_states @ kernel + bias).astype("float32")
    probabilities = jax.nn.softmax(logits)
    chosen = jnp.take_along_axis(probabilities, targets[..., None], -1)[..., 0]
    denominators = jnp.sum(jnp.exp(logits), -1)
    losses = -jnp.log(chosen) + z_loss * jnp.log(denominators) ** 2
    return jnp.sum(losses * weights)


def loss_and_gradients(function, arguments, **kwargs):
    compute = jax.value_and_grad(
        lambda *floats: 3.0 * function(*floats, *arguments[3:], **kwargs),
        argnums=(0, 1, 2),
    )
    return jax.jit(compute)(*arguments[:3])


@pytest.mark.parametrize("z_loss", (0.0, 0.01))
@pytest.mark.parametrize("max_logits", (1, 5 * 33, 10**9))
def test_loss_and_gradients_are_those_of_the_plain_formula(max_logits, z_loss):
    found = loss_and_gradients(
        head_cross_entropy, example(), max_logits=max_logits, z_loss=z_loss
    )
    expected = loss_and_gradients(plain, example(), z_loss=z_loss)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )


def test_chunks_on_a_mesh_need_no_jit():
    arguments = example()
    expected = head_cross_entropy(*arguments)
    mesh = model_parallel("batch:1,model:1", devices=jax.devices()[:1])
    keras.distribution.set_distribution(mesh)
    try:
        found = head_cross_entropy(*arguments, max_logits=3 * 11)
    finally:
        keras.distribution.set_distribution(None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bfloat16_states_have_a_float32_loss_and_bfloat16_gradients():
    loss, gradients = loss_and_gradients(
        head_cross_entropy, example("bfloat16"), max_logits=33
    )
    expected, _ = loss_and_gradients(plain, example("bfloat16"))
    assert loss.dtype == "float32"
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert [g.dtype for g in gradients] == ["bfloat16"] * 3


def test_logits_of_all_tokens_are_never_in_memory():
    hidden_states, kernel, bias, targets, weights = example(length=512)

    def memory(**kwargs):
        compiled = (
            jax.jit(
                jax.grad(
                    lambda h, k: head_cross_entropy(
                        h, k, bias, targets, weights, **kwargs
                    ),
                    argnums=(0, 1),
                )
            )
            .lower(hidden_states, jnp.tile(kernel[:, :1], 1000))
            .compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    bias = jnp.zeros(1000)
    logits = 3 * 512 * 1000 * 4
    assert memory(max_logits=10**9) > logits
    assert memory(max_logits=3 * 16 * 1000) < logits / 4


def test_chunks_without_weight_take_no_head():
    """With chunks of one column, only tokens that weigh something are read."""
    hidden_states, kernel, bias, targets, _ = example()
    weights = jnp.tile(jnp.arange(13) % 2, (3, 1)).astype("float32")
    # A weight of zero does not undo NaN: it shows if it is computed with.
    poisoned = jnp.where((weights == 0)[..., None], jnp.nan, hidden_states)
    arguments = (kernel, bias, targets, weights)
    expected = head_cross_entropy(hidden_states, *arguments)
    found = head_cross_entropy(poisoned, *arguments, max_logits=3 * 11)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isnan(head_cross_entropy(poisoned, *arguments))


@pytest.mark.slow
def test_the_kernel_goes_between_devices_once_however_many_chunks():
    pytest.importorskip("libtpu")
    devices = planning.tpu_devices("v5e-4")
    distribution = model_parallel("batch:4,model:1", zero=True, devices=devices)
    mesh = distribution.device_mesh.backend_mesh

    def array(dtype, *shape):
        # Rows, and the kernel as ZeRO has it, are split over `batch`.
        split = NamedSharding(mesh, PartitionSpec("batch"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

    rows = array("int32", 8, 256), array("float32", 8, 256)
    floats = array("bfloat16", 8, 256, 128), array("bfloat16", 128, 4096)

    def exchanged(columns):
        def loss(hidden_states, kernel, targets, weights):
            return head_cross_entropy(
                hidden_states,
                kernel,
                None,
                targets,
                weights,
                max_logits=2 * columns * 4096,
            )

        compute = jax.jit(
            jax.grad(loss, argnums=(0, 1)),
            out_shardings=tuple(x.sharding for x in floats),
        )
        cost = planning.plan(compute.lower(*floats, *rows), devices[0]).cost
        return {
            collective.kind: times
            for collective, times in cost.collectives.items()
            if collective.size >= 128 * 4096
        }

    keras.distribution.set_distribution(distribution)
    try:
        two, sixteen = exchanged(128), exchanged(16)
    finally:
        keras.distribution.set_distribution(None)
    # Gathered in bfloat16, and its gradient summed in float32.
    assert two == sixteen
    assert sum(two.values()) == 2
