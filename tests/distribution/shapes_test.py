import jax
import keras

from star_keras.distribution import model_parallel, variable_shapes


def lm_head():
    """Variables of a head without values."""
    with keras.StatelessScope(initialize_variables=False):
        layer = keras.layers.Dense(6, dtype="bfloat16", name="lm_head")
        layer.build((None, 4))
    return [layer.kernel, layer.bias]


def test_shapes_of_variables_without_values():
    kernel, bias = variable_shapes(lm_head())
    assert (kernel.shape, kernel.dtype, kernel.sharding) == ((4, 6), "bfloat16", None)
    assert (bias.shape, bias.dtype, bias.sharding) == ((6,), "bfloat16", None)


def test_shapes_have_the_shardings_of_a_distribution():
    distribution = model_parallel("batch:1,model:1", devices=[jax.devices()[0]])
    kernel, bias = variable_shapes(lm_head(), distribution)
    assert tuple(kernel.sharding.spec) == (None, "model")
    assert tuple(bias.sharding.spec) == ("model",)
    with distribution.scope():
        assert variable_shapes(lm_head()) == [kernel, bias]
