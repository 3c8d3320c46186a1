"""The newest iteration of a run that goes on."""

import json

import numpy as np
import pytest
import requests

from star_keras import testing
from star_keras.config import OptimizerConfig, ServingConfig
from star_keras.distribution.checkpoints import Checkpoints
from star_keras.sampling import ContinuousSampler, SampleRequest
from star_keras.serving import Service, service
from star_keras.storage.manifest import PHASES, Phase, manifest_line
from star_keras.training import compile_model
from tests.serving.conftest import running_server, wait_for

REQUEST = SampleRequest(prompt="Q: one?\nA:", name="one")
BODY = {"model": "tiny", "prompt": REQUEST.prompt, "max_tokens": 40, "temperature": 0}


def with_lora():
    model = testing.tiny_gpt_j()
    compile_model(model, OptimizerConfig(lora_rank=2))
    return model


class Run:
    """A run directory whose iterations have different models."""

    def __init__(self, path, make_model=testing.tiny_gpt_j):
        self.path = path
        self._make_model = make_model
        self._checkpoints = Checkpoints(path / "weights")
        self.texts = [self._text(make_model())]

    def train(self, iteration):
        model = self._make_model()
        draw = np.random.default_rng(iteration)
        for variable in model.trainable_variables:
            noise = draw.normal(size=variable.shape).astype("float32")
            scale = 0.5 if "lora" in variable.path else 0.1
            variable.assign(variable + scale * noise)
        self.texts.append(self._text(model))
        self._checkpoints.save(f"iteration_{iteration:04d}", model.variables)
        self._checkpoints.wait()
        lines = [manifest_line(iteration, phase, Phase(metrics={})) for phase in PHASES]
        with (self.path / "manifest.jsonl").open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def _text(self, model):
        sampler = ContinuousSampler(model, max_new_tokens=40, batch_size=2)
        ((_, completion),) = next(iter(sampler.sample([REQUEST])))
        return completion.text


def test_new_iterations_are_served_and_no_request_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_POLL_SECONDS", 0.05)
    run = Run(tmp_path)
    run.train(1)
    model = testing.tiny_gpt_j()
    with running_server(model, slots=2, run_dir=str(tmp_path)) as server:

        def text():
            answer = requests.post(f"{server.url}/v1/completions", json=BODY)
            assert answer.status_code == 200, answer.text
            return answer.json()["choices"][0]["text"]

        def iteration():
            return requests.get(f"{server.url}/health").json()["iteration"]

        assert iteration() == 1 and text() == run.texts[1]
        run.train(2)
        found = [text()]
        while found[-1] != run.texts[2]:
            found.append(text())
            assert len(found) < 2000
        assert set(found) <= set(run.texts[1:])
        assert iteration() == 2
        # Damage is told, and the old weights stay.
        (tmp_path / "manifest.jsonl").write_text("{\n{\n")
        assert text() == run.texts[2]
        wait_for(lambda: all(not x.is_alive for x in server.service._old_engines))
    assert len(set(run.texts)) == 3


def test_a_run_with_lora_is_served(tmp_path):
    run = Run(tmp_path, with_lora)
    run.train(1)
    with running_server(with_lora(), slots=2, run_dir=str(tmp_path)) as server:
        answer = requests.post(f"{server.url}/v1/completions", json=BODY).json()
    assert answer["choices"][0]["text"] == run.texts[1] != run.texts[0]


def test_a_run_before_its_first_iteration_is_the_base_model(tmp_path):
    model = testing.tiny_gpt_j()
    expected = Run(tmp_path).texts[0]
    with running_server(model, slots=2, run_dir=str(tmp_path)) as server:
        answer = requests.post(f"{server.url}/v1/completions", json=BODY).json()
        assert answer["choices"][0]["text"] == expected
        assert requests.get(f"{server.url}/health").json()["iteration"] == 0


def test_a_run_that_does_not_exist_is_refused(tmp_path):
    config = ServingConfig(run_dir=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="`run_dir`. Expected the directory of a run"):
        Service(testing.tiny_gpt_j(), config)
