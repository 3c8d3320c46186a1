"""Models of all families over several meshes: gradients; three train and sample too.

Without an outer loop, rows are packed, gradients are accumulated, and the head's
logits come in chunks.

Arguments: a JSON dict from families to triples of a mesh, `zero` and whether to train
in an outer loop; a directory for the runs. Prints JSON.
"""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import functools
import json
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import keras
import numpy as np

from star_keras import models, testing
from star_keras.callbacks import StarIterationCallback
from star_keras.config import SamplingConfig, StarConfig, TrainingConfig
from star_keras.distribution import model_parallel
from star_keras.planning import lower_train_step
from star_keras.sampling import SampleRequest, get_sampler
from star_keras.training import objectives
from star_keras.training.dataset import feed_token_ids

# Chunks of 3 of the 16 tokens of half of the 8 rows.
in_chunks = functools.partial(objectives.head_cross_entropy, max_logits=4 * 3 * 264)
SIZES = {
    "vocabulary_size": 264,
    "num_layers": 1,
    "hidden_dim": 64,
    "intermediate_dim": 128,
}
CONFIG = StarConfig(
    # Trains on known answers, and evaluates before and after.
    sampling=SamplingConfig(
        few_shot=False, direct=True, max_new_tokens=8, sample_batch_size=8
    ),
    training=TrainingConfig(start_steps=3, batch_size=8, sequence_length=48),
)
# They have a head of their own, groups, windows and soft caps. Of the other families,
# which differ in their layers alone, gradients are compared.
SAMPLED = ("gpt_j", "llama", "gemma2")
PREFIX = "Q: one?\n\n"
REQUESTS = [
    SampleRequest(prompt=PREFIX + "Q" * i, name=str(i), seed=(i,), prefix=PREFIX)
    for i in range(1, 13)
]


def preprocessor():
    return models.GPTJCausalLMPreprocessor(testing.byte_tokenizer())


def gpt_j():
    backbone = models.GPTJBackbone(**SIZES, num_heads=8, rotary_dim=4)
    return models.GPTJCausalLM(backbone, preprocessor(), compile=False)


def make_model(family):
    if family == "gpt_j":
        return gpt_j()
    heads = {"num_heads": 4} if family in ("gpt2", "opt", "gpt_neo_x", "pythia") else {}
    return testing.tiny_causal_lm(family, vocabulary_size=264, **heads)


def make(family, outer_loop):
    keras.utils.set_random_seed(0)
    model = make_model(family)
    # With a small `epsilon` Adam makes steps of rounding errors.
    optimizer = keras.optimizers.Adam(
        1e-2, epsilon=1e-3, global_clipnorm=1.0, name="adam"
    )
    model.compile(
        optimizer=optimizer,
        weighted_metrics=[],
        gradient_accumulation_steps=1 if outer_loop else 2,
    )
    return model


def sample(model):
    sampler = get_sampler(model, max_new_tokens=8, batch_size=8, temperature=1.0)
    done = {}
    for batch in sampler.sample(REQUESTS):
        done.update(batch)
    return [done[i].text for i in range(len(REQUESTS))]


def run_outer_loop(model, directory):
    star = StarIterationCallback(model, testing.Doubling(), directory, CONFIG)
    star.fit(epochs=1, verbose=0)
    files = sorted(Path(directory).glob("samples/*/*.jsonl"))
    return {
        "logs": {"loss": star.metrics[-1]["loss"]},
        "files": {f"{f.parent.name}/{f.name}": f.read_text() for f in files},
    }


def rows(batch):
    """Packed rows of two examples each, as `(x, y, sample_weight)`."""
    rng = np.random.default_rng(0)
    token_ids, labels = rng.integers(0, 264, (2, batch, 16), "int32")
    x = {
        "token_ids": token_ids,
        "padding_mask": np.ones_like(token_ids),
        "segment_ids": np.tile(np.arange(16) // 9, (batch, 1)),
        "positions": np.tile(np.arange(16) % 9, (batch, 1)),
    }
    return x, labels, (rng.uniform(size=labels.shape) < 0.4).astype("float32")


def train(model):
    feed_token_ids(model)
    x, labels, weights = rows(24)
    with mock.patch.object(objectives, "head_cross_entropy", in_chunks):
        history = model.fit(
            x,
            labels,
            sample_weight=weights,
            batch_size=8,
            shuffle=False,
            verbose=0,
        ).history
    return {"logs": {name: values[-1] for name, values in history.items()}}


def gradients(family):
    """The largest difference of gradients, relative to the largest gradient.

    It is that from the first run, on one device.
    """
    model = make_model(family)
    values = [v.value for v in model.trainable_variables]
    x, labels, weights = rows(8)
    if distribution := keras.distribution.distribution():
        layout = distribution.get_data_layout(labels.shape).backend_layout
        x, labels, weights = jax.device_put((x, labels, weights), layout)

    @jax.jit
    def compute(values, x, labels, weights):
        def loss(values):
            mapping = list(zip(model.trainable_variables, values, strict=True))
            with keras.StatelessScope(mapping):
                head = model.head()
                return objectives.head_cross_entropy(
                    model.hidden_states(x),
                    head.kernel,
                    head.bias,
                    labels,
                    weights,
                    soft_cap=head.soft_cap,
                )

        return jax.grad(loss)(values)

    found = [np.asarray(g) for g in compute(values, x, labels, weights)]
    whole = wholes.setdefault(family, found)
    largest = max(float(np.abs(g).max()) for g in whole)
    pairs = zip(found, whole, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs) / largest


def results(family, directory, outer_loop):
    if family not in SAMPLED:
        return {"difference": gradients(family)}
    model = make(family, outer_loop)
    found = {"texts": sample(model)}
    found |= run_outer_loop(model, directory) if outer_loop else train(model)
    variables = model.variables + model.optimizer.variables
    bytes_by_device = dict.fromkeys(jax.local_devices(), 0)
    for variable in variables:
        for shard in variable.value.addressable_shards:
            bytes_by_device[shard.device] += shard.data.nbytes
    sizes = [sum(v.value.nbytes for v in variables), max(bytes_by_device.values())]
    values = [np.asarray(v.value) for v in variables]
    whole = wholes.setdefault((family, outer_loop), values)
    pairs = zip(values, whole, strict=True)
    difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    found |= {"bytes": sizes, "difference": difference}
    if keras.distribution.distribution():
        found["axes"] = {v.path: list(v.value.sharding.spec) for v in variables}
    return found


def collectives(mesh):
    """Shapes of the arrays that the devices exchange in a step with `zero`."""
    keras.distribution.set_distribution(model_parallel(mesh, zero=True))
    model = models.GPTJCausalLM(
        models.GPTJBackbone(
            vocabulary_size=512,
            num_layers=1,
            num_heads=8,
            hidden_dim=64,
            intermediate_dim=256,
            rotary_dim=4,
        ),
        compile=False,
    )
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer=optimizer, weighted_metrics=[])
    optimizer.build(model.trainable_variables)
    found = {"all-gather": [], "all-reduce": [], "reduce-scatter": []}
    for line in lower_train_step(model, 16, 24).compile().as_text().splitlines():
        for name, shapes in found.items():
            if match := re.match(rf".* = (.*?) {name}(-start)?\(", line):
                shapes += re.findall(r"[a-z]+\d+\[([\d,]*)\]", match[1])
    return found


families, directory = sys.argv[1:]
wholes = {}  # values of the variables after the first run of a kind
found = {"devices": jax.device_count(), "collectives": collectives("batch:8")}
for family, runs in json.loads(families).items():
    for number, (mesh, zero, outer_loop) in enumerate(runs):
        keras.backend.clear_session()
        keras.distribution.set_distribution(mesh and model_parallel(mesh, zero=zero))
        found[f"{family} {mesh} {zero} {outer_loop}"] = results(
            family, f"{directory}/{family}-{number}", outer_loop
        )
json.dump(found, sys.stdout)
