"""A model over two slices of four devices: losses, gradients, samples, exchanges.

Argument: a JSON list of pairs of `zero` and the parts of gradient accumulation. Prints
JSON.
"""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import math
import re
import sys
from types import SimpleNamespace

import jax
import keras
import numpy as np

from star_keras import testing
from star_keras.distribution import model_parallel
from star_keras.planning import lower_train_step
from star_keras.planning.tpu_program import TpuProgram
from star_keras.sampling import SampleRequest, get_sampler
from star_keras.training.dataset import feed_token_ids

MESH = "slice:2,batch:2,model:2"
PREFIX = "Q: one?\n\n"
REQUESTS = [
    SampleRequest(prompt=PREFIX + "Q" * i, name=str(i), seed=(i,), prefix=PREFIX)
    for i in range(1, 9)
]


def make_model(parts=1):
    keras.utils.set_random_seed(0)
    model = testing.tiny_causal_lm("llama", vocabulary_size=264)
    # The change of a weight is its gradient.
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        weighted_metrics=[],
        gradient_accumulation_steps=parts,
    )
    return model


def results(parts):
    """The loss of a step, the gradients, and greedy completions afterwards."""
    model = make_model(parts)
    before = [np.asarray(v.value) for v in model.trainable_variables]
    feed_token_ids(model)
    rng = np.random.default_rng(0)
    token_ids, labels = rng.integers(0, 264, (2, 8, 16), "int32")
    x = {
        "token_ids": token_ids,
        "padding_mask": np.ones_like(token_ids),
        "segment_ids": np.tile(np.arange(16) // 9, (8, 1)),
        "positions": np.tile(np.arange(16) % 9, (8, 1)),
    }
    weights = (rng.uniform(size=labels.shape) < 0.4).astype("float32")
    history = model.fit(
        x, labels, sample_weight=weights, batch_size=8, shuffle=False, verbose=0
    ).history
    after = [np.asarray(v.value) for v in model.trainable_variables]
    sampler = get_sampler(model, max_new_tokens=8, batch_size=8, temperature=0.0)
    done = {}
    for batch in sampler.sample(REQUESTS):
        done.update(batch)
    return {
        "loss": history["loss"][0],
        "logs": sorted(history),
        "gradients": [a - b for a, b in zip(after, before, strict=True)],
        "texts": [done[i].text for i in range(len(REQUESTS))],
    }


def groups(line):
    """Replica groups of a collective, in any notation of HLO, `(groups, devices)`."""
    if listed := re.search(r"(?:groups|pairs)=\{\{(.*?)\}\}", line):
        return [list(map(int, g.split(","))) for g in listed[1].split("},{")]
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\](.*?) \{(.*?)\}", line):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        parts = dict(re.findall(r"'(\w+)'(?::\((\d+\)\d+))?", mesh[3]))
        shape, kept, summed = [], [], []
        for name, size in sizes.items():
            # The notation of a part of an axis is 'axis':(devices before it)size.
            part = parts.get(name) or f"1){size}"
            first, middle = map(int, part.split(")"))
            at = len(shape)
            shape += [first, middle, size // first // middle]
            (summed if name in parts else kept).append(at + 1)
            kept += [at, at + 2]
        devices = order_of_devices(mesh[2]).reshape(shape).transpose(kept + summed)
        return devices.reshape(-1, math.prod(shape[at] for at in summed)).tolist()
    iota = re.search(r"replica_groups=(\[[\d,]+\])<=(\S*?), ", line)
    return order_of_devices(iota[2]).reshape(json.loads(iota[1])).tolist()


def order_of_devices(text):
    """Devices in an order like `[4,2]T(1,0)`: the numbers of a transposed array."""
    found = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    sizes, order = found.groups() if found else ("8", None)
    devices = np.arange(8).reshape(list(map(int, sizes.split(","))))
    return devices.transpose(list(map(int, order.split(","))) if order else None)


def exchanges(parts):
    """Collectives of a training step between slices, and the bytes of gradients.

    The bytes are those of a device: of the gradients in the layout of their weights,
    and with all of `batch` on the device. A loop over parts counts as one pass.
    """
    model = make_model(parts)
    model.optimizer.build(model.trainable_variables)
    lines = lower_train_step(model, 16, 24).compile().as_text().splitlines()

    def is_within(line):
        if not re.search("replica_groups=|source_target_pairs=", line):
            return False
        return all(max(g) < 4 or min(g) >= 4 for g in groups(line))

    program = TpuProgram("\n".join(line for line in lines if not is_within(line)))
    plain, sizes = model_parallel(MESH), []
    for v in model.trainable_variables:
        whole = plain.get_variable_layout(SimpleNamespace(path=v.path, shape=v.shape))
        layouts = v.value.sharding, whole.backend_layout
        sizes.append([4 * math.prod(x.shard_shape(v.shape)) for x in layouts])
    return {
        "between": [[c.kind, c.size, c.source] for c in program.cost.collectives],
        "within": sum(map(is_within, lines)),
        "gradients": np.sum(sizes, axis=0).tolist(),
    }


def main():
    found = {"devices": jax.device_count()}
    whole = results(1)
    for zero, parts in json.loads(sys.argv[1]):
        keras.distribution.set_distribution(model_parallel(MESH, zero=zero))
        split = results(parts)
        pairs = zip(split["gradients"], whole["gradients"], strict=True)
        found[f"{zero} {parts}"] = {
            "losses": [split["loss"], whole["loss"]],
            "logs": split["logs"],
            "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
            "largest": max(float(np.abs(g).max()) for g in whole["gradients"]),
            "texts": [split["texts"], whole["texts"]],
            **exchanges(parts),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
