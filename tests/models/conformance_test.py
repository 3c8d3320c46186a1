"""Every family keeps the claims of the fast way, compared with its stock model."""

import collections
import contextlib
import functools
import logging
import re

import jax
import jax.numpy as jnp
import keras
import keras_hub
import numpy as np
import pytest
from scipy import special

from star_keras.config import OptimizerConfig
from star_keras.models import load_causal_lm
from star_keras.models.families import family_of
from star_keras.models.forward import head, hidden_states
from star_keras.sampling import ContinuousSampler, SampleRequest
from star_keras.testing import FAMILIES, tiny_causal_lm
from star_keras.training import compile_model, make_row, tokenize_examples
from star_keras.training.dataset import feed_token_ids
from star_keras.training.packing import stack_rows

LENGTHS = (13, 20)
ATOL = 1e-4  # of logits up to 30
ROW = 40


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def stock(family):
    """The model as KerasHub makes it."""
    return tiny_causal_lm(family, packed=False)


@pytest.fixture(scope="module")
def packed(stock, family):
    return tiny_causal_lm(family)


@pytest.fixture(scope="module")
def rows():
    """Two sequences alone, and both packed in one row; the windows are crossed."""
    generator = np.random.default_rng(1)
    sequences = [generator.integers(1, 258, n).astype("int32") for n in LENGTHS]
    row = {
        name: np.zeros((2, ROW), "int32")
        for name in ("token_ids", "padding_mask", "segment_ids", "positions")
    }
    # The second row has them in the other order.
    for i, order in enumerate([(0, 1), (1, 0)]):
        start = 0
        for segment, which in enumerate(order, 1):
            tokens = sequences[which]
            at = slice(start, start + len(tokens))
            row["token_ids"][i, at] = tokens
            row["padding_mask"][i, at] = 1
            row["segment_ids"][i, at] = segment
            row["positions"][i, at] = np.arange(len(tokens))
            start += len(tokens)
    return sequences, row


def alone(tokens):
    return {
        "token_ids": tokens[None],
        "padding_mask": np.ones((1, len(tokens)), "int32"),
    }


def make_logits(model):
    """Function from a sequence to its logits `(length, vocabulary)`, on its own."""
    call = jax.jit(lambda x: model(x)[0].astype("float32"))

    def logits(tokens):
        padded = np.zeros((2, 64), "int32")
        padded[:, : len(tokens)] = tokens, np.ones(len(tokens))
        logits = call({"token_ids": padded[:1], "padding_mask": padded[1:]})
        return np.asarray(logits)[: len(tokens)]

    return logits


@pytest.fixture(scope="module")
def stock_logits(stock):
    return make_logits(stock)


def logits_of_rows(model, row):
    return np.asarray(jax.jit(lambda x: model(x))(row))


@pytest.fixture(scope="module")
def packed_logits(packed, rows):
    return logits_of_rows(packed, rows[1])


def test_packed_logits_equal_those_of_each_sequence_alone(
    stock_logits, packed_logits, rows
):
    sequences, logits = rows[0], packed_logits
    first, second = map(stock_logits, sequences)
    assert np.std(first) > 0.3  # no trivial weights
    m, n = LENGTHS
    np.testing.assert_allclose(logits[0, :m], first, atol=ATOL)
    np.testing.assert_allclose(logits[0, m : m + n], second, atol=ATOL)
    np.testing.assert_allclose(logits[1, :n], second, atol=ATOL)
    np.testing.assert_allclose(logits[1, n : m + n], first, atol=ATOL)


def test_the_layers_of_gemma_3_that_see_all_do_so_in_packed_rows(rows):
    sequences, row = rows
    packed = tiny_causal_lm("gemma3", num_layers=6)  # the last is such a layer
    logits = logits_of_rows(packed, row)
    expected = make_logits(packed)(sequences[1])
    m, n = LENGTHS
    np.testing.assert_allclose(logits[0, m : m + n], expected, atol=ATOL)


def test_packed_gradients_equal_those_of_each_sequence_alone(stock, packed, rows):
    sequences, row = rows

    def gradients(model, batches):
        def loss(values):
            total = 0.0
            mapping = list(zip(model.trainable_variables, values, strict=True))
            with keras.StatelessScope(mapping):
                for logits, tokens in batches():
                    chosen = jax.nn.log_softmax(logits[:-1])
                    total -= jnp.sum(jnp.take_along_axis(chosen, tokens[1:, None], 1))
            return total

        return jax.jit(jax.grad(loss))([v.value for v in model.trainable_variables])

    m, n = LENGTHS

    def from_packed():
        x = hidden_states(packed, row, training=True)
        logits = head(packed).logits(x)
        yield logits[0, :m], sequences[0]
        yield logits[0, m : m + n], sequences[1]

    def from_stock():
        for tokens in sequences:
            yield stock(alone(tokens))[0], tokens

    found, expected = gradients(packed, from_packed), gradients(stock, from_stock)
    largest = max(np.abs(x).max() for x in expected)
    for variable, one, other in zip(
        stock.trainable_variables, found, expected, strict=True
    ):
        # (A bias of all keys changes no attention: its gradient is rounding alone.)
        scale = max(np.abs(other).max(), 3e-3 * largest)
        np.testing.assert_allclose(
            one / scale, other / scale, atol=1e-4, err_msg=variable.path
        )


@contextlib.contextmanager
def compilations():
    """Counts the programs that JAX compiles, by their names."""
    programs, handler = collections.Counter(), logging.Handler()
    handler.emit = lambda record: programs.update(
        re.findall(r"^Compiling jit\((\w+)\)", record.getMessage())
    )
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield programs
    finally:
        logger.removeHandler(handler)


def sample(packed, prefix, slots):
    """Requests, the texts of their completions, and the programs compiled for them."""
    prompts = ["a:", "b c d e f g h i?", "Q: two?\nA:", "xyz", "1 2 3 4 5 6 7 8"]
    requests = [
        SampleRequest(prompt=prefix + p, name=p, prefix=prefix) for p in prompts
    ]
    sampler = ContinuousSampler(packed, max_new_tokens=12, batch_size=slots)
    found = {}
    with compilations() as programs:
        for batch in sampler.sample(requests):
            found.update({i: completion.text for i, completion in batch})
    return requests, found, programs


@functools.cache
def programs_of_gpt_j(prefix, slots):
    return sample(tiny_causal_lm("gpt_j"), prefix, slots)[2]


def check_greedy_samples(stock_logits, packed, prefix, slots):
    requests, found, programs = sample(packed, prefix, slots)
    tokenizer = packed.preprocessor.tokenizer
    for i, request in enumerate(requests):
        assert found[i] == greedy(stock_logits, tokenizer, request.prompt, 12)
    # As many programs as GPT-J, beside operations that run outside of them.
    most = programs_of_gpt_j(prefix, slots)
    names = "_prefill", "_resize", "_insert", "_decode"
    assert all(1 <= programs[name] <= most[name] for name in names)


def test_continuous_sampling_equals_a_greedy_loop(stock_logits, packed):
    check_greedy_samples(stock_logits, packed, prefix="Q: one?\nA: 1.\n\n", slots=2)


@pytest.mark.parametrize("family", ("gpt_j", "gemma2"), indirect=True)
def test_more_slots_than_prompts_and_no_prefix_change_nothing(stock_logits, packed):
    check_greedy_samples(stock_logits, packed, prefix="", slots=8)


def greedy(stock_logits, tokenizer, prompt, max_new_tokens):
    """The likeliest next token of the whole sequence, again and again."""
    ids, new = list(tokenizer(prompt)), []
    while len(new) < max_new_tokens:
        chosen = int(stock_logits(ids + new)[-1].argmax())
        if chosen == tokenizer.end_token_id:
            break
        new.append(chosen)
    return tokenizer.detokenize(new) if new else ""


def batch_of(model):
    examples = [
        ("Q: one?\nA:", " 1."),
        ("Q: two and two?\nA:", " four, 4."),
        ("abc", "d e f"),
        ("x", "yz"),
    ]
    examples = tokenize_examples(model.preprocessor, [(*e, 1.0) for e in examples])
    return stack_rows([make_row(examples[i : i + 2], 48, 0) for i in (0, 2)])


def train(family, config, dtype=None, steps=3, **sizes):
    """Losses of a few steps on the same batch, and the trained model."""
    model = tiny_causal_lm(family, dtype=dtype, **sizes)
    compile_model(model, config)
    x, y, weights = batch_of(model)
    feed_token_ids(model)
    losses = [
        model.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
        for _ in range(steps)
    ]
    return losses, model


CONFIG = OptimizerConfig(learning_rate=1e-3, warmup_steps=0)


@pytest.fixture(scope="module")
def losses(family):
    with compilations() as programs:
        losses = train(family, CONFIG)[0]
    assert programs["train_step"] == 1
    return losses


def test_loss_is_the_weighted_mean_by_the_stock_logits(losses, stock, stock_logits):
    x, y, weights = batch_of(stock)
    total = weight = 0.0
    for row in range(len(y)):
        for segment in range(1, x["segment_ids"][row].max() + 1):
            at = x["segment_ids"][row] == segment
            logits = special.log_softmax(stock_logits(x["token_ids"][row][at]), axis=1)
            chosen = np.take_along_axis(logits, y[row][at][:, None], 1)
            total -= np.sum(chosen[:, 0] * weights[row][at])
            weight += weights[row][at].sum()
    np.testing.assert_allclose(losses[0], total / weight, rtol=1e-5)
    assert losses[2] < losses[0]


def test_accumulation_and_checkpointing_change_nothing(family, losses):
    config = OptimizerConfig(
        learning_rate=1e-3,
        warmup_steps=0,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
    )
    np.testing.assert_allclose(losses, train(family, config)[0], rtol=1e-4)


def test_low_rank_adapters_and_mixed_precision_train(family):
    losses, model = train(
        family,
        OptimizerConfig(learning_rate=1e-2, warmup_steps=0, lora_rank=2),
        dtype="mixed_bfloat16",
    )
    assert losses[2] < losses[0]
    # Biases beside the adapters are trained as well, as everywhere in Keras.
    assert all("lora" in v.path or "bias" in v.path for v in model.trainable_variables)
    adapters = sum("lora" in v.path for v in model.trainable_variables)
    assert adapters >= 2 * model.backbone.num_layers


def test_stock_keras_hub_loads_what_was_saved(
    stock_logits, packed, packed_logits, rows, tmp_path
):
    packed.save_to_preset(tmp_path / "preset")
    again = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    fast = load_causal_lm(str(tmp_path / "preset"))
    assert family_of(fast) is not None
    tokens = rows[0][0]
    np.testing.assert_array_equal(make_logits(again)(tokens), stock_logits(tokens))
    np.testing.assert_array_equal(logits_of_rows(fast, rows[1]), packed_logits)
