"""Whole runs on pairs of right and wrong completions."""

import jax
import keras
import numpy as np
import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import OptimizerConfig
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.training import compile_model
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    examples,
    fit,
    make_config,
    metrics,
    weights,
)


def half_right(request):
    n, number = int(request.name.removeprefix("double-")), request.seed[2]
    right = n % 2 if request.seed[3] else number % 2
    if n == 3:
        right = True
    return f" Way {number}. The answer is {2 * n if right else 1}."


def make(make_model, path, **settings):
    model = make_model()
    config = OptimizerConfig(objective="rpo", learning_rate=1e-3, warmup_steps=0)
    compile_model(model, config)
    star = StarIterationCallback(
        model,
        Doubling(train=8, held_out=2),
        path,
        make_config(
            samples_per_problem=4,
            start_steps=6,
            add_steps=0,
            sequence_length=160,
            **settings,
        ),
        sampler=ScriptedSampler(half_right),
    )
    return star, model


class Stop(keras.callbacks.Callback):
    """Ends the process, as it were, in the middle of the second training."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.params["epochs"] and self.epoch == 1 and batch == 4:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def test_a_run_trains_on_pairs_and_resumes_within_its_training(make_model, tmp_path):
    star, model = make(make_model, tmp_path / "whole", skip_eval=True)
    base = weights(model)
    fit(star, 2)
    # Problem 3 is right in all four samples; the others have two pairs.
    assert len(examples(star)) == 7 * 2 * 2
    tokenizer = model.preprocessor.tokenizer
    for right, wrong in zip(examples(star)[::2], examples(star)[1::2], strict=True):
        np.testing.assert_array_equal(right.prompt_ids, wrong.prompt_ids)
        answers = [
            tokenizer.detokenize(x.response_ids[:-1].tolist()).rpartition(" ")[2]
            for x in (right, wrong)
        ]
        assert answers[0] != answers[1] == "1."
        assert right.reference < 0 and wrong.reference < 0
    assert any((a != b).any() for a, b in zip(base, weights(model), strict=True))
    for line in star.metrics:
        assert line["num_rationales"] == 14
        assert line["not_kept/unpaired"] == 4
        assert 0 <= line["pair_accuracy"] <= 1
        assert line["pair_margin"] > 0  # it has learned to tell them apart
    cut, _ = make(make_model, tmp_path / "cut", skip_eval=True, checkpoint_steps=2)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, 2, [Stop()])
    cut, cut_model = make(
        make_model, tmp_path / "cut", skip_eval=True, checkpoint_steps=2
    )
    fit(cut, 2)
    assert all_samples(star) == all_samples(cut)
    assert_equal_weights(model, cut_model)
    timeless = [
        [{k: v for k, v in line.items() if "pair" not in k} for line in metrics(x)]
        for x in (star, cut)
    ]
    assert len(timeless[0]) == len(timeless[1]) == 2


def test_the_training_of_all_iterations_is_compiled_once(make_model, tmp_path):
    star, model = make(make_model, tmp_path, skip_eval=True)
    traces = []
    step = model.train_step

    def counted(state, data):
        traces.append(jax.tree.map(lambda x: x.shape, data[0]))
        return step(state, data)

    object.__setattr__(model, "train_step", counted)
    fit(star, 2)
    assert len(traces) == 1
    assert traces[0]["reference"] == (2, 160)


def test_pairs_longer_than_a_row_are_not_trained_on(make_model, tmp_path):
    def talkative(request):
        steps = " Let me see." * (request.name != "double-0")
        return steps + half_right(request)

    def star_of(path, sampler):
        model = make_model()
        compile_model(model, OptimizerConfig(objective="rpo"))
        return StarIterationCallback(
            model,
            Doubling(train=2, held_out=1),
            path,
            make_config(samples_per_problem=4, sequence_length=110, skip_eval=True),
            sampler=ScriptedSampler(sampler),
        )

    star = star_of(tmp_path / "some", talkative)
    fit(star, 1)
    # Of each problem two right and two wrong completions.
    for selection in star.run.samples.load_selection(1):
        is_long = selection.problem != "double-0"
        assert selection.reason == ("too_long" if is_long else "")
        assert not (is_long and selection.is_wrong)
    assert metrics(star)[0]["num_examples"] == 4
    long = star_of(tmp_path / "none", lambda request: " Hm." * 9 + half_right(request))
    message = "`sequence_length`. Expected at least [0-9]+, .* shortest of 4 pairs"
    with pytest.raises(ValueError, match=message):
        fit(long, 1)
