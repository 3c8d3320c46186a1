import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")
import keras
import lm_eval.api.registry
from keras_hub.models import GPT2Backbone, GPT2CausalLM, GPT2CausalLMPreprocessor
from keras_hub.tokenizers import GPT2Tokenizer
from lm_eval.api.instance import Instance

from star_keras import testing
from star_keras.integrations.lm_eval_model import StarKerasLM
from star_keras.models import save_hugging_face
from tests.conftest import run_with_torch
from tests.forks import ROOT
from tests.sampling.plain import PlainModel

HUGGING_FACE = ROOT / "tests" / "fixtures" / "hugging_face"
PAIRS = [
    ("The capital of France", " is Paris"),
    ("", "no context at all"),
    ("a", "b"),
    ("trailing spaces   ", "move"),
    ("", "<|endoftext|>then text"),
    ("a context of several words, longer than the others are", " end"),
    ("é", "ü, and then a much longer continuation than its context"),
]


def instances(kind, arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=a, idx=i)
        for i, a in enumerate(arguments)
    ]


def log_likelihood(lm, pairs):
    return lm.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)


def rolling(lm, texts):
    requests = instances("loglikelihood_rolling", [(text,) for text in texts])
    return lm.loglikelihood_rolling(requests, disable_tqdm=True)


def generate(lm, prompts, **settings):
    requests = instances("generate_until", [(p, settings) for p in prompts])
    return lm.generate_until(requests, disable_tqdm=True)


def plain_log_likelihood(plain, context, continuation):
    # One token a byte.
    tokenizer = plain.tokenizer
    ids = tokenizer(context + continuation).tolist()
    count = len(tokenizer(continuation))
    if context == "" and ids[0] == tokenizer.end_token_id:
        count -= 1
    elif context == "":
        ids = [tokenizer.end_token_id, *ids]
    count += len(context) - len(context.rstrip())
    return plain.score(ids, count)


def plain_greedy(plain, prompt, count):
    """The greedy completion of at most `count` tokens, as text."""
    return plain.tokenizer.detokenize(plain.greedy(plain.tokenizer(prompt), count))


@pytest.fixture(scope="module")
def model(byte_tokenizer):
    """A GPT-J whose completions differ; some end before their longest length."""
    model = testing.tiny_gpt_j(tokenizer=byte_tokenizer, max_sequence_length=2048)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0, 0.2, variable.shape))
    end = np.arange(258) == byte_tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(end, 1.5, 0.0))
    return model


@pytest.fixture(scope="module")
def plain(model):
    return PlainModel(model)


@pytest.fixture(scope="module")
def lm(model):
    return StarKerasLM(model, batch_size=2)


@pytest.fixture(scope="module")
def by_transformers(model, tmp_path_factory):
    """The answers of the same model as transformers' GPT-J in lm_eval's own adapter."""
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    directory = tmp_path_factory.mktemp("gpt_j")
    save_hugging_face(model, directory)
    requests, answers = directory / "requests.json", directory / "answers.json"
    requests.write_text(
        json.dumps(
            {
                "loglikelihood": LONGER_PAIRS,
                "loglikelihood_rolling": [[text] for text in TEXTS],
                "generate_until": [[prompt, SETTINGS] for prompt in PROMPTS],
            }
        )
    )
    run_with_torch("lm_eval_by_transformers", directory, requests, answers)
    return json.loads(answers.read_text())


@pytest.fixture(scope="module")
def gpt2(byte_tokenizer):
    """A small random GPT-2, whose preprocessor adds a start token."""
    tokens = byte_tokenizer.get_vocabulary()
    tokenizer = GPT2Tokenizer(
        vocabulary={token: byte_tokenizer.token_to_id(token) for token in tokens},
        merges=byte_tokenizer.merges,
    )
    keras.utils.set_random_seed(0)
    backbone = GPT2Backbone(
        vocabulary_size=258,
        num_layers=1,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=128,
    )
    return GPT2CausalLM(backbone, GPT2CausalLMPreprocessor(tokenizer))


def assert_close(found, expected):
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    np.testing.assert_allclose(
        [score for score, _ in found], [score for score, _ in expected], atol=1e-4
    )


# === Log-likelihoods ===


@pytest.mark.parametrize("batch_size", [2, 4])
def test_log_likelihoods_equal_a_plain_forward_pass(model, plain, batch_size):
    """In the order of the requests."""
    expected = [plain_log_likelihood(plain, *pair) for pair in PAIRS]
    assert np.std([score for score, _ in expected]) > 1
    lm = StarKerasLM(model, batch_size=batch_size)
    assert_close(log_likelihood(lm, PAIRS), expected)
    assert_close(log_likelihood(lm, PAIRS[::-1]), expected[::-1])


def test_a_context_of_blanks_is_the_prefix_token(lm):
    found = log_likelihood(lm, [(" ", "x"), ("  ", "x")])
    assert_close(found, log_likelihood(lm, [("", " x"), ("", "  x")]))


def test_long_contexts_lose_their_beginning(model, plain):
    context, continuation = "0123456789" * 9, " the end"
    ids = plain.tokenizer(context + continuation).tolist()
    expected = [plain.score(ids[-21:], len(continuation))]
    lm = StarKerasLM(model, max_length=20)
    assert_close(log_likelihood(lm, [(context, continuation)]), expected)


def test_rolling_log_likelihood_is_the_sum_over_the_text(lm, plain):
    texts = ["some text", "a", "another text, and a longer one"]
    expected = [plain_log_likelihood(plain, "", text)[0] for text in texts]
    np.testing.assert_allclose(rolling(lm, texts), expected, atol=1e-4)


def test_rolling_windows_score_each_token_once(model, plain):
    ids = plain.tokenizer("0123456789").tolist()
    end = plain.tokenizer.end_token_id
    expected = sum(
        plain.score(row, count)[0]
        for row, count in (
            ([end, *ids[:4]], 4),
            (ids[3:8], 4),
            # The last window has more context instead of new tokens.
            (ids[5:10], 2),
        )
    )
    found = rolling(StarKerasLM(model, max_length=4), ["0123456789"])
    np.testing.assert_allclose(found, [expected], atol=1e-4)


def test_other_models_have_a_start_token_if_their_preprocessor_adds_one(gpt2):
    lm, plain = StarKerasLM(gpt2), PlainModel(gpt2)
    expected = [plain.score([0, *plain.tokenizer("ab").tolist()], 1)]
    assert_close(log_likelihood(lm, [("a", "b")]), expected)
    # Not twice.
    assert_close(log_likelihood(lm, [("<|endoftext|>a", "b")]), expected)


@pytest.mark.parametrize(("name", "prefix"), [("llama_tied", 1), ("qwen2", 2)])
def test_an_empty_context_is_the_bos_token_also_if_no_text_begins_with_it(name, prefix):
    """As in transformers; qwen2 has none, and takes the end token."""
    lm = StarKerasLM(str(HUGGING_FACE / name))
    assert lm.tokenizer.start_token_id is None
    assert lm.prefix_token_id == prefix


# === Generation ===


def test_greedy_is_the_default_and_stop_strings_end_it(lm, plain):
    [text] = generate(lm, ["some text"], max_gen_toks=12)
    assert text == plain_greedy(plain, "some text", 12)
    stop = text[2:4]
    assert len(stop) == 2
    [stopped] = generate(lm, ["some text"], until=["", stop], max_gen_toks=12)
    assert stopped == text[: text.find(stop)]


def test_long_prompts_lose_their_beginning(model, plain):
    lm = StarKerasLM(model, max_length=30)
    prompt = "0123456789" * 5
    expected = plain_greedy(plain, prompt[-18:], 12)
    [text] = generate(lm, [prompt], max_gen_toks=12)
    assert text == expected
    assert expected != plain_greedy(plain, prompt[-30:], 12)


def test_requests_with_different_settings_come_back_in_order(lm):
    prompts = ["some text", "", "another, longer text"]
    settings = [
        {"max_gen_toks": 4},
        {"max_gen_toks": 7, "until": "e"},
        {"max_gen_toks": 4, "do_sample": True, "temperature": 0.9, "min_p": 0.1},
    ]
    apart = [generate(lm, prompts, **s) for s in settings]
    arguments = [(p, s) for p in prompts for s in settings]
    found = lm.generate_until(instances("generate_until", arguments), True)
    for n in (0, 1):
        assert found[n::3] == apart[n]


def test_sampled_completions_differ_from_greedy_and_from_each_other(model):
    lm = StarKerasLM(model, batch_size=4)
    settings = {"max_gen_toks": 12, "do_sample": True, "temperature": 1.5}
    texts = generate(lm, ["some text"] * 3, **settings)
    assert len({*texts, *generate(lm, ["some text"], max_gen_toks=12)}) == 4
    assert texts == generate(lm, ["some text"] * 3, **settings)


# === lm_eval's own adapter ===


LONGER_PAIRS = [*PAIRS, ("a context far longer than the model's length " * 3, " end")]
TEXTS = ["some text", "a text of several windows " * 8, "é"]
PROMPTS = ["some text", "a", "Q: What?\nA:", "a long prompt " * 9, "é"]
SETTINGS = {"until": ["e"], "max_gen_toks": 24}


def test_log_likelihoods_equal_those_of_transformers(model, by_transformers):
    found = log_likelihood(StarKerasLM(model, max_length=64), LONGER_PAIRS)
    assert_close(found, by_transformers["loglikelihood"])


def test_rolling_equals_that_of_transformers(model, by_transformers):
    lm = StarKerasLM(model, batch_size=4, max_length=64)
    expected = by_transformers["loglikelihood_rolling"]
    np.testing.assert_allclose(rolling(lm, TEXTS), expected, atol=1e-3, rtol=1e-5)


def test_generation_equals_that_of_transformers(model, by_transformers):
    lm = StarKerasLM(model, batch_size=2, max_length=64)
    expected = by_transformers["generate_until"]
    assert generate(lm, PROMPTS, **SETTINGS) == expected
    assert len(set(expected)) > 2


# === Errors ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"batch_size": "auto"}, "argument `batch_size`"),
        ({"batch_size": 0}, "argument `batch_size`"),
        ({"batch_size": 3, "mesh": "batch:2"}, "multiple of 2"),
        ({"max_length": 2049}, "argument `max_length`"),
        ({"dtype": "bfloat16"}, "argument `dtype`"),
        ({"mesh": "batch:1"}, "argument `mesh`"),
    ),
)
def test_wrong_arguments_are_named(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        StarKerasLM(model, **arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    (
        ({"num_beams": 4}, "num_beams"),
        ({"max_gen_toks": 2048}, "max_gen_toks"),
        ({"do_sample": True, "max_gen_toks": 4}, "temperature"),
    ),
)
def test_settings_that_cannot_be_met_are_named(lm, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(lm, ["some text"], **settings)


def test_empty_and_too_long_continuations_raise(model):
    lm = StarKerasLM(model, max_length=4)
    for continuation in ("", "12345"):
        with pytest.raises(ValueError, match="max_length=4"):
            log_likelihood(lm, [("a", continuation)])


# === Command line ===


@pytest.mark.slow
def test_command_line_evaluates_local_tasks(model, plain, tmp_path):
    model.save_to_preset(str(tmp_path / "preset"))
    questions = ["What is it?", "And this?", "One more", "Another one", "The last"]
    choices = ["left", "no", "something else"]
    rows = []
    accuracy = 0
    for i, question in enumerate(questions):
        scores = [plain_log_likelihood(plain, question, f" {c}")[0] for c in choices]
        text = plain_greedy(plain, question, 6)
        target = text if i < 3 else f"not {text}"
        rows.append(
            {"question": question, "choices": choices, "answer": i % 3, "text": target}
        )
        accuracy += (np.argmax(scores) == i % 3) / len(questions)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choice = {
        "task": "toy_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    text = {
        "task": "toy_text",
        "output_type": "generate_until",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match"}],
    }
    # JSON is YAML.
    for name, own in (("choice", choice), ("text", text)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task | own))
    command = [sys.executable, "-m", "star_keras.integrations.lm_eval_model"]
    command += ["--model", "star_keras", "--batch_size", "4"]
    command += ["--model_args", f"pretrained={tmp_path / 'preset'},dtype=float32"]
    command += ["--tasks", "toy_choice,toy_text", "--include_path", str(tmp_path)]
    command += ["--output_path", str(tmp_path / "results")]
    environment = {"HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "results").rglob("results*.json")
    results = json.loads(path.read_text())["results"]
    assert results["toy_choice"]["acc,none"] == pytest.approx(accuracy)
    assert results["toy_text"]["exact_match,none"] == pytest.approx(0.6)


def test_lm_eval_knows_the_model_by_name():
    assert lm_eval.api.registry.get_model("star_keras") is StarKerasLM
