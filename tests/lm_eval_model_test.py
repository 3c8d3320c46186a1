import json
import os
import pathlib
import runpy
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

from star_keras.lm_eval_model import StarKerasLM
from star_keras.models import GPTJCausalLMPreprocessor

TESTS = pathlib.Path(__file__).parent
PAIRS = [
    ("The capital of France", " is Paris"),
    ("", "no context at all"),
    ("a", "b"),
    ("trailing spaces   ", "move"),
    ("", "<|endoftext|>then text"),
    ("a context of several words, longer than the others are", " end"),
    ("é", "ü, and then a much longer continuation than its context"),
]
CONFIG = {
    "vocab_size": 258,
    "n_positions": 64,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 32,
    "n_inner": 64,
    "rotary_dim": 8,
    "layer_norm_epsilon": 1e-5,
}


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


def plain_logits(model, ids):
    """Logits `(len(ids), vocabulary)` of one row in float64."""
    row = np.zeros((1, 128), "int32")
    row[0, : len(ids)] = ids
    mask = (np.arange(128) < len(ids))[None].astype("int32")
    logits = np.asarray(model({"token_ids": row, "padding_mask": mask}))
    return logits[0, : len(ids)].astype("float64")


def plain_scores(model, ids, count):
    """Log-likelihood of the last `count` ids, and whether all are greedy."""
    logits = plain_logits(model, ids)[-count - 1 : -1]
    targets = ids[-count:]
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    greedy = logits.argmax(axis=-1).tolist() == targets
    return log_probs[np.arange(count), targets].sum(), greedy


def plain_log_likelihood(model, context, continuation):
    # One token a byte.
    tokenizer = model.preprocessor.tokenizer
    ids = tokenizer(context + continuation).tolist()
    count = len(tokenizer(continuation))
    if context == "" and ids[0] == tokenizer.end_token_id:
        count -= 1
    elif context == "":
        ids = [tokenizer.end_token_id, *ids]
    count += len(context) - len(context.rstrip())
    return plain_scores(model, ids, count)


def plain_greedy(model, prompt, count):
    """The greedy completion of at most `count` tokens, as text."""
    tokenizer = model.preprocessor.tokenizer
    ids = tokenizer(prompt).tolist()
    start = len(ids)
    while len(ids) < start + count:
        ids.append(int(plain_logits(model, ids)[-1].argmax()))
        if ids[-1] == tokenizer.end_token_id:
            return tokenizer.detokenize(ids[start:-1])
    return tokenizer.detokenize(ids[start:])


@pytest.fixture(scope="module")
def state(byte_tokenizer):
    """Random weights of a GPT-J under transformers' names."""
    script = runpy.run_path(str(TESTS / "fixtures" / "make_gpt_j_fixtures.py"))
    state = script["random_state"](CONFIG, np.random.default_rng(0))
    # Else no completion ends before its length is reached.
    state["lm_head.bias"][byte_tokenizer.end_token_id] += 1.5
    return state


@pytest.fixture(scope="module")
def model(state, byte_tokenizer):
    """A GPT-J with these weights."""
    script = runpy.run_path(str(TESTS / "models" / "gpt_j_transformers_test.py"))
    model = script["model_from_transformers"](CONFIG, state)
    model.preprocessor = GPTJCausalLMPreprocessor(byte_tokenizer)
    model.compile()
    return model


@pytest.fixture(scope="module")
def adapter(state, byte_tokenizer):
    """transformers' GPT-J with these weights in lm_eval's own adapter."""
    for module in ("torch", "transformers", "accelerate"):
        pytest.importorskip(module)
    import transformers
    from lm_eval.models.huggingface import HFLM

    script = runpy.run_path(str(TESTS / "fixtures" / "make_gpt_j_fixtures.py"))
    model = script["transformers_model"](CONFIG, state)
    model.generation_config.eos_token_id = byte_tokenizer.end_token_id
    tokens = byte_tokenizer.get_vocabulary()
    tokenizer = transformers.GPT2Tokenizer(
        vocab={token: byte_tokenizer.token_to_id(token) for token in tokens},
        merges=[tuple(merge.split()) for merge in byte_tokenizer.merges],
    )
    tokenizer.pad_token = tokenizer.eos_token
    return HFLM(
        model, tokenizer=tokenizer, batch_size=3, max_length=64, backend="causal"
    )


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


def test_log_likelihoods_equal_a_plain_forward_pass(model):
    expected = [plain_log_likelihood(model, *pair) for pair in PAIRS]
    assert np.std([score for score, _ in expected]) > 1
    assert_close(log_likelihood(StarKerasLM(model, batch_size=3), PAIRS), expected)


@pytest.mark.parametrize("batch_size", (1, 4, 16))
def test_log_likelihoods_do_not_depend_on_batches_or_order(model, batch_size):
    expected = [plain_log_likelihood(model, *pair) for pair in PAIRS]
    lm = StarKerasLM(model, batch_size=batch_size)
    assert_close(log_likelihood(lm, PAIRS[::-1]), expected[::-1])
    assert_close(log_likelihood(lm, PAIRS[2:3]), expected[2:3])


def test_greedy_continuations_are_told_from_others(model):
    lm = StarKerasLM(model)
    context = [65, 66, 67]
    likeliest = []
    for _ in range(5):
        logits = plain_logits(model, context + likeliest)
        likeliest.append(int(logits[-1].argmax()))
    other = [*likeliest[:2], (likeliest[2] + 1) % 258, *likeliest[3:]]
    found = lm._loglikelihood_tokens(
        [(None, context, likeliest), (None, context, other)], disable_tqdm=True
    )
    assert [greedy for _, greedy in found] == [True, False]
    assert found[0][0] > found[1][0]


def test_long_contexts_lose_their_beginning(model):
    context, continuation = "0123456789" * 9, " the end"
    ids = model.preprocessor.tokenizer(context + continuation).tolist()
    expected = [plain_scores(model, ids[-21:], len(continuation))]
    lm = StarKerasLM(model, max_length=20)
    assert_close(log_likelihood(lm, [(context, continuation)]), expected)


def test_rolling_log_likelihood_is_the_sum_over_the_text(model):
    texts = ["some text", "a", "another text, and a longer one"]
    expected = [plain_log_likelihood(model, "", text)[0] for text in texts]
    found = rolling(StarKerasLM(model, batch_size=2), texts)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rolling_windows_score_each_token_once(model):
    ids = model.preprocessor.tokenizer("0123456789").tolist()
    end = model.preprocessor.tokenizer.end_token_id
    expected = sum(
        plain_scores(model, row, count)[0]
        for row, count in (
            ([end, *ids[:4]], 4),
            (ids[3:8], 4),
            # The last window has more context instead of new tokens.
            (ids[5:10], 2),
        )
    )
    found = rolling(StarKerasLM(model, max_length=4), ["0123456789"])
    np.testing.assert_allclose(found, [expected], atol=1e-4)


def test_few_lengths_are_compiled(model):
    lm = StarKerasLM(model, batch_size=2, max_length=64)
    pairs = [("c" * n, "d" * m) for n in range(1, 50) for m in (1, 2, 7)]
    log_likelihood(lm, pairs)
    # Inputs of 16, 32, 48 and 64 tokens.
    assert lm._score._cache_size() <= 4


def test_other_models_have_a_start_token_if_their_preprocessor_adds_one(gpt2):
    expected = [plain_scores(gpt2, [0, *gpt2.preprocessor.tokenizer("ab").tolist()], 1)]
    assert_close(log_likelihood(StarKerasLM(gpt2), [("a", "b")]), expected)
    # Not twice.
    pair = ("<|endoftext|>a", "b")
    assert_close(log_likelihood(StarKerasLM(gpt2), [pair]), expected)


# === Generation ===


def test_greedy_is_the_default_and_stop_strings_end_it(model):
    lm = StarKerasLM(model, batch_size=2)
    [text] = generate(lm, ["some text"], max_gen_toks=12)
    assert text == plain_greedy(model, "some text", 12)
    stop = text[2:4]
    assert len(stop) == 2
    [stopped] = generate(lm, ["some text"], until=["", stop], max_gen_toks=12)
    assert stopped == text[: text.find(stop)]


def test_long_prompts_lose_their_beginning(model):
    lm = StarKerasLM(model, max_length=30)
    prompt = "0123456789" * 5
    expected = plain_greedy(model, prompt[-18:], 12)
    [text] = generate(lm, [prompt], max_gen_toks=12)
    assert text == expected
    assert expected != plain_greedy(model, prompt[-30:], 12)


def test_requests_with_different_settings_come_back_in_order(model):
    prompts = ["some text", "", "another, longer text"]
    lm = StarKerasLM(model, batch_size=2)
    settings = [
        {"max_gen_toks": 4},
        {"max_gen_toks": 7, "until": "e"},
        {"max_gen_toks": 4, "do_sample": True, "temperature": 0.9, "top_k": 5},
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


def test_log_likelihoods_equal_those_of_transformers(model, adapter):
    pairs = [*PAIRS, ("a context far longer than the model's length " * 3, " end")]
    expected = log_likelihood(adapter, pairs)
    assert_close(log_likelihood(StarKerasLM(model, max_length=64), pairs), expected)


def test_rolling_equals_that_of_transformers(model, adapter):
    texts = ["some text", "a text of several windows " * 8, "é"]
    lm = StarKerasLM(model, batch_size=4, max_length=64)
    np.testing.assert_allclose(
        rolling(lm, texts), rolling(adapter, texts), atol=1e-3, rtol=1e-5
    )


def test_generation_equals_that_of_transformers(model, adapter):
    prompts = ["some text", "a", "Q: What?\nA:", "a long prompt " * 9, "é"]
    lm = StarKerasLM(model, batch_size=2, max_length=64)
    settings = {"until": ["e"], "max_gen_toks": 24}
    expected = generate(adapter, prompts, **settings)
    assert generate(lm, prompts, **settings) == expected
    assert len(set(expected)) > 2


# === Errors ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"batch_size": "auto"}, "argument `batch_size`"),
        ({"batch_size": 0}, "argument `batch_size`"),
        ({"batch_size": 3, "mesh": "batch:2"}, "multiple of 2"),
        ({"max_length": 2049}, "argument `max_length`"),
        ({"dtype": "bfloat16"}, "`dtype` and `mesh`"),
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
def test_settings_that_cannot_be_met_are_named(model, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(StarKerasLM(model), ["some text"], **settings)


def test_empty_and_too_long_continuations_raise(model):
    lm = StarKerasLM(model, max_length=4)
    for continuation in ("", "12345"):
        with pytest.raises(ValueError, match="max_length=4"):
            log_likelihood(lm, [("a", continuation)])


# === Command line ===


@pytest.mark.slow
def test_command_line_evaluates_local_tasks(model, tmp_path):
    model.save_to_preset(str(tmp_path / "preset"))
    questions = ["What is it?", "And this?", "One more", "Another one", "The last"]
    choices = ["left", "no", "something else"]
    rows = []
    accuracy = 0
    for i, question in enumerate(questions):
        scores = [plain_log_likelihood(model, question, f" {c}")[0] for c in choices]
        text = plain_greedy(model, question, 6)
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
    command = [sys.executable, "-m", "star_keras.lm_eval_model"]
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
