"""Greatest difference of a kernel's outputs and gradients, mesh against one device.

The cases are meshes with numbers of key-value heads, of their query heads, and of rows.
The argument is "splash", "gpu" or "blocks". Prints JSON.
"""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import functools
import json
import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np

from star_keras.distribution import model_parallel
from star_keras.models.attention_in_blocks import attend_rows_in_blocks
from star_keras.models.gpu_attention import gpu_attend
from star_keras.models.splash_attention import splash_attend

KERNELS = {
    "splash": functools.partial(splash_attend, sliding_window=90),
    "gpu": gpu_attend,
    "blocks": attend_rows_in_blocks,
}
LENGTH = 640 if sys.argv[1] == "blocks" else 128  # two blocks in each quarter
# Heads that divide by `model`; fewer than devices, in parts of groups; that do not
# divide; rows that do not, alone and with heads that do not; slices.
CASES = (
    ("batch:2,model:4", 4, 1, 2),
    ("batch:2,model:4", 2, 4, 2),
    ("batch:1,model:8", 2, 8, 2),
    ("batch:2,model:4", 3, 1, 2),
    ("batch:4,model:2", 1, 2, 3),
    ("batch:4,model:2", 1, 3, 3),
    ("slice:2,batch:2,model:2", 4, 1, 4),
)


def run(heads, group, rows):
    rng = np.random.default_rng(0)
    shapes = [(rows, heads, group, LENGTH, 16)] + 2 * [(rows, heads, LENGTH, 16)]
    arrays = [jnp.asarray(rng.normal(size=shape), "float32") for shape in shapes]
    segment_ids = jnp.asarray(rng.integers(0, 2, (rows, LENGTH)), "int32")

    @jax.jit
    def gradients(*arrays):
        def loss(*arrays):
            outputs = attend(*arrays, segment_ids, scale=0.3)
            return jnp.sum(jnp.sin(outputs)), outputs

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arrays)

    return jax.tree.leaves(jax.tree.map(np.asarray, gradients(*arrays)))


attend = KERNELS[sys.argv[1]]
found = {"devices": len(jax.devices())}
for mesh, *sizes in CASES:
    keras.distribution.set_distribution(None)
    expected = run(*sizes)
    keras.distribution.set_distribution(model_parallel(mesh))
    differences = [
        float(np.abs(x - y).max()) for x, y in zip(run(*sizes), expected, strict=True)
    ]
    found[f"{mesh} {sizes}"] = max(differences)
print(json.dumps(found))
