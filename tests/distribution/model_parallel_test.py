import json
import math
import re

import pytest

from tests.conftest import run_on_eight_devices, run_processes
from tests.distribution.layouts_test import expected_axes

# One training and evaluating loop and one sampler a layout, in a process of its own.
PROGRAM = """
import star_keras
import json
import sys
import time
import jax
import keras
import keras_hub
import numpy as np
from pathlib import Path
from tokenizers import pre_tokenizers
from star_keras import distribution, models
from star_keras.callbacks import StarIterationCallback
from star_keras.distribution import model_parallel, processes
from star_keras.rationales import RationaleStore
from star_keras.sampling import SampleRequest, get_sampler
from tests.conftest import Doubling

if sys.argv[3:]:
    distribution.initialize(sys.argv[3], 2, int(sys.argv[4]))
    if processes.is_writer():
        # A slow disk: the other process waits for what it reads below.
        append = RationaleStore.append
        RationaleStore.append = lambda *args: (time.sleep(1), append(*args))

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {t: i for i, t in enumerate(["<|endoftext|>", *alphabet, "qz"])}
SIZES = {"vocabulary_size": 264, "num_layers": 1, "hidden_dim": 64,
         "intermediate_dim": 128}
LOSS = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, reduction="mean_with_sample_weight")

def gpt_j():
    tokenizer = models.GPTJTokenizer(vocabulary=vocabulary, merges=["q z"])
    return models.GPTJCausalLM(
        models.GPTJBackbone(**SIZES, num_heads=8, rotary_dim=4),
        models.GPTJCausalLMPreprocessor(tokenizer))

def hub(name, **kwargs):
    backbone = getattr(keras_hub.models, name + "Backbone")(**SIZES, **kwargs)
    # Bytes, as GPT-2's tokenizer has them: the network takes any.
    preprocessor = models.GPTJCausalLMPreprocessor(
        models.GPTJTokenizer(vocabulary=vocabulary, merges=["q z"]))
    return getattr(keras_hub.models, name + "CausalLM")(
        backbone=backbone, preprocessor=preprocessor)

FAMILIES = {
    "gpt_j": gpt_j,
    "gpt2": lambda: hub("GPT2", num_heads=4, max_sequence_length=128),
    "llama": lambda: hub("Llama", num_query_heads=4, num_key_value_heads=2,
                         tie_word_embeddings=False),
    "gemma": lambda: hub("Gemma", num_query_heads=4, num_key_value_heads=1,
                         head_dim=16),
}

def make(family):
    keras.utils.set_random_seed(0)
    model = FAMILIES[family]()
    for variable in model.trainable_variables:  # stock logits are all alike
        if family != "gpt_j" and len(variable.shape) > 1:
            variable.assign(4 * variable.value)
    arguments = {} if family == "gpt_j" else {"loss": LOSS}
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=1.0, name="adam"),
        weighted_metrics=[], **arguments)
    return model

prefix = "Q: one?\\n\\n"
requests = [
    SampleRequest(prompt=prefix + "Q" * i, name=str(i), seed=(i,), prefix=prefix)
    for i in range(1, 13)]

def results(family, directory):
    model = make(family)
    sampler = get_sampler(model, max_new_tokens=8, batch_size=8, temperature=1.0)
    done = {}
    for batch in sampler.sample(requests):
        done.update(batch)
    # Trains on known answers, and evaluates before and after.
    star = StarIterationCallback(
        model, Doubling(), sampler, directory, few_shot=False, direct=True,
        steps=lambda *_: 3, batch_size=8, row_length=48)
    history = model.fit(
        star.dataset, epochs=1, callbacks=[star], shuffle=False, verbose=0).history
    variables = model.variables + model.optimizer.variables
    bytes_by_device = dict.fromkeys(jax.local_devices(), 0)
    for variable in variables:
        for shard in variable.value.addressable_shards:
            bytes_by_device[shard.device] += shard.data.nbytes
    files = [path.read_text() for path in sorted(Path(directory).glob("samples/*"))]
    return {
        "texts": [done[i].text for i in range(len(requests))],
        "loss": history["loss"],
        "files": files,
        "weights": [float(np.abs(processes.gather(v.value)).sum()) for v in variables],
        "bytes": [sum(v.value.nbytes for v in variables),
                  max(bytes_by_device.values())],
        "axes": {v.path: list(v.value.sharding.spec) for v in variables}
        if keras.distribution.distribution() else None,
    }

found = {"devices": jax.device_count()}
for family, meshes in json.loads(sys.argv[1]).items():
    for number, (mesh, zero) in enumerate(meshes):
        keras.backend.clear_session()
        keras.distribution.set_distribution(
            mesh and model_parallel(mesh, zero=zero))
        found[f"{family} {mesh} {zero}"] = results(
            family, sys.argv[2] + f"/{family}-{number}")
print("\\n" + json.dumps(found))
"""

LAYOUTS = {
    "gpt_j": [
        (None, False),
        ("batch:2,model:4", False),
        ("batch:8", False),
        ("model:8", False),
        ("batch:8", True),
    ],
    **dict.fromkeys(
        ("gpt2", "llama", "gemma"), [(None, False), ("batch:2,model:4", True)]
    ),
}
CASES = [(f, m, z) for f, meshes in LAYOUTS.items() for m, z in meshes if m]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program above finds; JAX takes its devices at the start."""
    return run_on_eight_devices(
        PROGRAM, json.dumps(LAYOUTS), str(tmp_path_factory.mktemp("runs"))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("family", "mesh", "zero"), CASES)
def test_split_model_trains_and_samples_like_the_whole_one(found, family, mesh, zero):
    check_like_the_whole_one(
        found[f"{family} {mesh} {zero}"], found[f"{family} None False"]
    )


def check_like_the_whole_one(split, whole):
    assert len(set(whole["texts"])) > 6
    assert split["texts"] == whole["texts"]
    assert split["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert '"evaluation"' in "".join(whole["files"])
    assert split["files"] == whole["files"]
    # Sums of the values of each weight and moment.
    assert split["weights"] == pytest.approx(whole["weights"], rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "zero", "parts"),
    (
        ("batch:8", False, 1),
        ("batch:2,model:4", False, 4),
        ("model:8", False, 8),
        ("batch:8", True, 8),
    ),
)
def test_each_device_holds_its_share_of_weights_and_moments(found, mesh, zero, parts):
    total, most = found[f"gpt_j {mesh} {zero}"]["bytes"]
    assert 1 <= most / (total / parts) < 1.15  # the rest are vectors


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ("batch:2,model:4", "model:8"))
def test_every_variable_lies_on_the_devices_as_expected_after_training(found, mesh):
    split = found[f"gpt_j {mesh} False"]
    assert len(split["axes"]) == 3 * (10 + 5) + 2
    for path, axes in split["axes"].items():
        expected = expected_axes(path)
        while expected and expected[-1] is None:
            expected = expected[:-1]
        while axes and axes[-1] is None:
            axes = axes[:-1]
        assert axes == expected, path


@pytest.mark.slow
def test_two_processes_train_sample_and_write_like_one(found, tmp_path):
    layouts = [("model:4", False)]
    first, second = run_processes(PROGRAM, json.dumps({"gpt_j": layouts}), tmp_path)
    for process in (first, second):
        assert process.returncode == 0, process.stderr[-3000:]
    # Gloo prints too.
    first, second = (
        json.loads(re.search('^{"devices".*$', p.stdout, re.MULTILINE)[0])
        for p in (first, second)
    )
    for mesh, zero in layouts:
        name = f"gpt_j {mesh} {zero}"
        check_like_the_whole_one(first[name], found["gpt_j None False"])
        assert second[name] == first[name]


COLLECTIVES = """
import star_keras
import json
import re
import sys
import jax
import keras
import numpy as np
from keras.src.backend.jax.trainer import _distribute_data
from star_keras.distribution import model_parallel
from star_keras.models import GPTJBackbone, GPTJCausalLM

keras.distribution.set_distribution(model_parallel("batch:8", zero=True))
model = GPTJCausalLM(GPTJBackbone(
    vocabulary_size=512, num_layers=1, num_heads=8, hidden_dim=64,
    intermediate_dim=256, rotary_dim=4))
model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), weighted_metrics=[])
model.optimizer.build(model.trainable_variables)
tokens = np.ones((16, 24), "int32")
data = _distribute_data(({"token_ids": tokens, "padding_mask": tokens}, tokens))
state = model._get_jax_state(
    trainable_variables=True, non_trainable_variables=True,
    optimizer_variables=True, metrics_variables=True)
text = jax.jit(
    model.train_step, out_shardings=(None, model._get_state_sharding_spec())
).lower(state, data).compile().as_text()
found = {"devices": jax.device_count()}
for name in ("all-gather", "all-reduce", "reduce-scatter"):
    shapes = []
    for line in text.splitlines():
        match = re.match(rf".* = (.*?) {name}(-start)?\\\\(", line)
        if match:
            shapes += re.findall(r"[a-z]+\\\\d+\\\\[([\\\\d,]*)\\\\]", match.group(1))
    found[name] = sorted(shapes)
json.dump(found, sys.stdout)
"""


@pytest.mark.slow
def test_zero_gathers_weights_and_not_the_rows():
    found = run_on_eight_devices(COLLECTIVES.replace("\\\\", "\\"))
    weights = ["64,8,8"] * 3 + ["8,8,64", "64,256", "256,64"]
    gathered = found["all-gather"]
    assert not [w for w in set(weights) if gathered.count(w) < weights.count(w)]
    # 16 rows or their 384 tokens, whole on a device: token ids alone, which the
    # embedding needs, split by its width.
    rows = [s for s in gathered if s.split(",")[0] in ("16", "384")]
    assert all(math.prod(map(int, s.split(","))) <= 384 for s in rows)
    # On CPU a gradient is summed whole and then cut; TPUs scatter the sums.
    reduced = found["all-reduce"] + found["reduce-scatter"]
    assert not [s for s in reduced if s.split(",")[0] in ("16", "384")]
