"""RPO against full logits of two models, one completion after the other."""

import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from star_keras.config import OptimizerConfig
from star_keras.testing import tiny_gpt_j
from star_keras.training import (
    TrainingExample,
    compile_model,
    objectives,
    training_batches,
)
from star_keras.training.reference_scorer import ReferenceScorer

BETA, NLL_WEIGHT = 0.7, 0.3
SIZES = {"num_layers": 1, "hidden_dim": 16, "intermediate_dim": 32}
ROWS, LENGTH = 2, 24
WEIGHTS = (1.0, 0.25, 0.5, 1.0)


def make_examples():
    """Four pairs: right, wrong, right, wrong and so on; two pairs a row."""
    rng = np.random.default_rng(0)

    def ids(count):
        return rng.integers(1, 258, count).astype("int32")

    examples = []
    for weight in WEIGHTS:
        prompt = ids(rng.integers(1, 4))
        examples += [
            TrainingExample(
                prompt_ids=prompt, response_ids=ids(rng.integers(1, 5)), weight=weight
            )
            for _ in range(2)
        ]
    return examples


def with_references(examples, references):
    return [
        TrainingExample(
            prompt_ids=e.prompt_ids,
            response_ids=e.response_ids,
            weight=e.weight,
            reference=float(reference),
        )
        for e, reference in zip(examples, references, strict=True)
    ]


def full_log_probs(model, values, examples):
    """Log-probabilities of responses, from all logits; a padded row for each."""
    ids, counted = np.zeros((2, len(examples), 12), "int32")
    for row, e in enumerate(examples):
        ids[row, : len(e) + 1] = np.concatenate([e.prompt_ids, e.response_ids])
        counted[row, len(e.prompt_ids) : len(e) + 1] = 1
    inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones_like(ids[:, :-1])}
    others = [v.value for v in model.non_trainable_variables]
    logits, _ = model.stateless_call(values, others, inputs)
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=2)[..., 0]
    return jnp.sum(chosen * counted[:, 1:], axis=1)


def plain_loss(model, values, examples, references):
    """The loss and the share of pairs with a positive margin."""
    log_probs = full_log_probs(model, values, examples)
    total = weights = positive = 0.0
    for i in range(0, len(examples), 2):
        right, wrong = log_probs[i], log_probs[i + 1]
        margin = (right - references[i]) - (wrong - references[i + 1])
        loss = -jnp.log(jax.nn.sigmoid(BETA * margin))
        loss -= NLL_WEIGHT * right / len(examples[i].response_ids)
        total += examples[i].weight * loss
        weights += examples[i].weight
        positive += examples[i].weight * (margin > 0)
    return total / weights, positive / weights


def values_of(model):
    return [v.value for v in model.trainable_variables]


@pytest.fixture(scope="module")
def expected():
    """Examples with references, and the plain loss, its gradients, and the accuracy."""
    reference, model = tiny_gpt_j(7, **SIZES), tiny_gpt_j(8, **SIZES)
    examples = make_examples()
    references = np.asarray(
        jax.jit(lambda values: full_log_probs(reference, values, examples))(
            values_of(reference)
        )
    )
    (loss, accuracy), gradients = jax.jit(
        jax.value_and_grad(
            lambda values: plain_loss(model, values, examples, references),
            has_aux=True,
        )
    )(values_of(model))
    return with_references(examples, references), loss, gradients, accuracy


def batches(examples, **kwargs):
    arguments = {"batch_size": ROWS, "sequence_length": LENGTH, "pad_id": 0}
    return training_batches(examples, seed=[0], paired=True, **{**arguments, **kwargs})


def step(examples, **compiled):
    """One step of SGD: its metrics, and the gradients by what it changed."""
    model = tiny_gpt_j(8, **SIZES)
    arguments = {"objective": "rpo", "dpo_beta": BETA, "nll_weight": NLL_WEIGHT}
    sgd = keras.optimizers.SGD(1.0)
    model.compile(sgd, weighted_metrics=None, **{**arguments, **compiled})
    before = [np.array(value) for value in values_of(model)]  # `fit` gives them away
    model.preprocessor = None
    x, y, sample_weight = next(batches(examples))
    history = model.fit(
        *(x, y, ROWS), sample_weight=sample_weight, shuffle=False, verbose=0
    ).history
    after = map(np.array, values_of(model))
    gradients = [a - b for a, b in zip(before, after, strict=True)]
    return {name: value[0] for name, value in history.items()}, gradients


@pytest.mark.parametrize("parts", [1, 2])
def test_packed_pairs_have_the_loss_and_gradients_of_full_logits(expected, parts):
    examples, loss, gradients, accuracy = expected
    logs, found = step(examples, gradient_accumulation_steps=parts)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(logs["pair_accuracy"], accuracy, rtol=1e-5)
    assert 0 < accuracy < 1
    for one, other in zip(found, gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_few_logits_at_a_time_change_nothing(expected, monkeypatch):
    examples, loss, gradients, _ = expected
    for name in ("head_cross_entropy", "head_log_probs"):
        whole = getattr(objectives, name)

        def in_chunks(*arguments, whole=whole, **kwargs):
            return whole(*arguments, **kwargs, max_logits=ROWS * 5 * 258)

        monkeypatch.setattr(objectives, name, in_chunks)
    logs, found = step(examples)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    for one, other in zip(found, gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_references_are_those_of_full_logits_and_start_at_log_two(expected):
    model = tiny_gpt_j(8, **SIZES)
    examples = make_examples()
    scorer = ReferenceScorer(model, batch_size=3, sequence_length=LENGTH, pad_id=0)
    found = scorer.score(examples)
    plain = full_log_probs(model, values_of(model), examples)
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    logs, _ = step(with_references(examples, found), nll_weight=0.0)
    np.testing.assert_allclose(logs["loss"], np.log(2), rtol=1e-5)
    assert abs(logs["pair_margin"]) < 1e-5


def test_both_sides_of_a_pair_are_next_to_each_other_in_a_row(expected):
    examples = expected[0]
    sides = [tuple(e.response_ids.tolist()) for e in examples]
    stream = batches(examples, batch_size=1)
    # Two rows a pass.
    for x, y, weights in itertools.islice(stream, 6):
        assert x["reference"].dtype == "float32"
        found = []
        for segment in range(1, x["segment_ids"].max() + 1):
            chosen = (x["segment_ids"] == segment) & (weights > 0)
            found.append(sides.index(tuple(y[chosen].tolist())))
            total = x["reference"][x["segment_ids"] == segment].sum()
            np.testing.assert_allclose(total, examples[found[-1]].reference, rtol=1e-6)
        assert found
        for right, wrong in zip(found[::2], found[1::2], strict=True):
            assert right % 2 == 0 and wrong == right + 1


def test_a_batch_without_pairs_has_the_loss_zero():
    logs, gradients = step([])
    assert logs["loss"] == 0
    assert all(np.all(g == 0) for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dpo_beta": 0.2}, "dpo_beta"),
        ({"nll_weight": 0.0}, "nll_weight"),
        ({"objective": "rpo", "z_loss": 1e-4}, "z_loss"),
        ({"objective": "rpo", "metrics": ["accuracy"]}, "objective"),
        ({"objective": "dpo"}, "objective"),
        ({"objective": "rpo", "dpo_beta": 0.0}, "dpo_beta"),
    ],
)
def test_settings_that_do_not_go_together_are_named(arguments, name):
    model = tiny_gpt_j(**SIZES)
    with pytest.raises(ValueError, match=f"`{name}`"):
        model.compile("adam", **arguments)


def test_the_configuration_reaches_the_model():
    model = tiny_gpt_j(**SIZES)
    config = OptimizerConfig(objective="rpo", dpo_beta=0.2, nll_weight=0.5)
    compile_model(model, config)
    assert (model.objective, model.dpo_beta, model.nll_weight) == ("rpo", 0.2, 0.5)
    with pytest.raises(ValueError, match="`dpo_beta`"):
        OptimizerConfig(dpo_beta=0.2)
