"""`lm_eval --model local-completions` against the server."""

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("tenacity")  # lm_eval[api]
import requests
from lm_eval.models.openai_completions import LocalCompletionsAPI

from star_keras.integrations.lm_eval_model import StarKerasLM
from tests.integrations.lm_eval_model_test import instances
from tests.serving.conftest import PROMPT

PAIRS = [
    (PROMPT + "<scratch>\n3 5 + 9 1 , C: 0\n3 + 9 ,", " 6"),
    ("", "no context at all"),
    ("a", "b"),
    ("The capital of France", " is Paris"),
    ("trailing spaces   ", "move"),
    ("\u00e9", "\u00fc, and then a longer continuation"),
]


@pytest.fixture(scope="module")
def own(model):
    return StarKerasLM(model)


@pytest.fixture(scope="module", params=[1, 3], ids=["alone", "batches"])
def remote(server, request):
    lm = LocalCompletionsAPI(
        model="tiny",
        base_url=f"{server.url}/v1/completions",
        max_length=512,
        batch_size=request.param,
    )
    assert lm.tokenizer_backend == "remote"
    yield lm
    lm.tokenizer.session.close()


def test_log_likelihoods_equal_those_of_our_model_in_lm_eval(remote, own):
    found, expected = (
        lm.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True)
        for lm in (remote, own)
    )
    assert any(greedy for _, greedy in expected)
    for (value, greedy), (own_value, own_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(own_value, abs=1e-4)
        assert greedy == own_greedy


def test_completions_equal_those_of_our_model_in_lm_eval(remote, own):
    settings = {"until": ["\n"], "max_gen_toks": 40}
    wanted = [(prompt, settings) for prompt in (PROMPT, "Input:\n1 + 1\nTarget:\n")]
    found, expected = (
        lm.generate_until(instances("generate_until", wanted), disable_tqdm=True)
        for lm in (remote, own)
    )
    assert found == expected


def test_the_tokenizer_is_that_of_the_model(server, model):
    tokenizer = model.preprocessor.tokenizer

    def post(path, **body):
        return requests.post(f"{server.url}/{path}", json=body)

    ids = tokenizer(PROMPT).tolist()
    found = post("tokenize", prompt=PROMPT, model="tiny").json()
    assert found == {"tokens": ids, "count": len(ids), "max_model_len": 512}
    assert post("detokenize", tokens=ids).json() == {"prompt": PROMPT}
    info = requests.get(f"{server.url}/tokenizer_info").json()
    assert info["eos_token"] == tokenizer.id_to_token(tokenizer.end_token_id)
    for body in ({}, {"prompt": 5}, {"prompt": "a", "x": 1}, {"model": "b"}):
        assert post("tokenize", **body).status_code in (400, 404)
    for ids in ([500], "a", [1.5], None):
        assert post("detokenize", tokens=ids).status_code == 400
