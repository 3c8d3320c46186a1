import gc
import weakref

import keras
import numpy as np
import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.outer_loop import plots, training_set
from star_keras.sampling import BatchSampler
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.utils.json_lines import read_json_lines
from tests.callbacks.conftest import (
    assert_equal_weights,
    fit,
    half_right,
    make_config,
    metrics,
    samples,
    scripted,
    weights,
)

# === The loop ===


def test_metrics_are_in_the_logs_and_the_metrics_file(make_star, tmp_path):
    star = make_star()
    csv = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = fit(star, 2, [csv]).history
    # 24 problems: the 12 odd ones right, of the even ones 6 more with a hint.
    assert history["train_accuracy"] == [0.5, 0.5]
    assert history["train_accuracy/even"] == [0, 0]
    assert history["train_accuracy/odd"] == [1, 1]
    assert history["rationalization_accuracy"] == [0.5, 0.5]
    assert history["num_rationales"] == [18, 18]
    assert history["share_kept"] == [0.5, 0.5]
    assert history["share_rationalized"] == [0.25, 0.25]
    assert history["unparsed"] == [2 / 36, 2 / 36]
    assert history["eval_accuracy"] == [0.5, 0.5]
    assert history["not_kept/incorrect"] == [16, 16]
    assert history["not_kept/unparsed"] == [2, 2]
    assert history["steps"] == [2, 3]
    # 3 of 6 held-out problems: the 95% interval of Wilson.
    assert history["eval_accuracy_low"][0] == pytest.approx(0.188, abs=1e-3)
    assert history["eval_accuracy_high"][0] == pytest.approx(0.812, abs=1e-3)
    assert [line["iteration"] for line in metrics(star)] == [0, 1, 2]
    assert metrics(star)[2]["eval_accuracy/odd"] == 1
    assert "eval_accuracy/odd" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_the_report_has_the_prompts_of_the_run(make_star):
    star = make_star()
    fit(star, 1)
    page = (star.run_dir / "report.html").read_text()
    assert "1 iteration trained" in page and "Not shown" not in page
    lines = read_json_lines(star.run_dir / "problems.jsonl")
    problems = star.loop.problems["train"] + star.loop.problems["eval"]
    assert [line["problem"] for line in lines] == [problem.id for problem in problems]
    prompt, hinted = (
        star.loop.prompts.prefix(hint) + lines[3][name]
        for hint, name in ((False, "prompt"), (True, "hinted_prompt"))
    )
    assert prompt == star.loop.prompts.build(problems[3])
    assert hinted == star.loop.prompts.build(problems[3], hint=True)


def test_kept_rationales_are_tokenized_once(make_star, monkeypatch):
    calls, tokenize_stream = [], training_set.tokenize_stream

    def counted(*args, **kwargs):
        calls.append(args)
        return tokenize_stream(*args, **kwargs)

    monkeypatch.setattr(training_set, "tokenize_stream", counted)
    fit(make_star(), 2)
    assert len(calls) == 2


def test_a_run_goes_on_without_its_plots(make_star, monkeypatch):
    def full(history, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "save_plots", full)
    star = make_star()
    with pytest.warns(UserWarning, match="plots of .* were not written .*No space"):
        fit(star, 1)
    assert star.initial_epoch == 1


def test_an_iteration_without_rationales_has_the_base_weights(make_star, make_model):
    model = make_model()
    model.compile(optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.1))
    before = [np.array(variable) for variable in model.trainable_variables]
    sampler = scripted(lambda request: " Who knows?")
    star = make_star(model=model, sampler=sampler, on_empty="continue")
    fit(star, 1)
    assert star.metrics[1]["steps"] == 0
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_run_goes_on_without_its_report(make_star):
    star = make_star()
    (star.run_dir / "report.html").mkdir(parents=True)
    with pytest.warns(UserWarning, match="report.html was not written"):
        fit(star, 1)
    assert star.initial_epoch == 1


def test_everything_sampled_is_on_disk_with_what_became_of_it(make_star):
    star = make_star()
    fit(star, 1)
    counts = {"rationale": 24, "rationalization": 12, "evaluation": 6}
    for kind, count in counts.items():
        assert [s.kind for s in samples(star, 1, kind)] == [kind] * count
    plain = {s.problem: s for s in samples(star, 1)}
    assert plain["double-3"].verdict == "correct"
    assert plain["double-6"].verdict == "incorrect"
    assert plain["double-6"].answer == "7"
    assert plain["double-8"].verdict == "unparsed"
    lines = read_json_lines(
        star.run_dir / "samples/iteration_0001/selection.jsonl", set()
    )
    assert len(lines) == 24 + 12
    selected = {(line["kind"], line["problem"]): line for line in lines}
    assert selected["rationale", "double-3"]["weight"] == 1
    assert selected["rationale", "double-6"]["weight"] == 0
    assert selected["rationale", "double-6"]["reason"] == "incorrect"
    assert selected["rationalization", "double-6"]["weight"] == 1
    assert selected["rationale", "double-8"]["reason"] == "unparsed"
    assert samples(star, 0, "rationale") is None
    assert len(samples(star, 0, "evaluation")) == 6


def test_the_constructor_copies_hashes_and_locks_nothing(make_star, make_model):
    model = make_model()
    model.lm_head.bias.assign(model.lm_head.bias + 1)
    star = make_star(model=model)
    assert star.initial_epoch == 0
    assert not star.run_dir.exists()
    # The base model is the one that is fitted, not the one at construction.
    model.lm_head.bias.assign(model.lm_head.bias - 1)
    fit(star, 1)
    other = make_model()
    fit(make_star("other", other), 1)
    assert_equal_weights(model, other)


def test_a_model_and_its_callback_leave_the_memory_after_a_fit(make_model, make_star):
    """As in a notebook that loads the base model again for another run."""
    model = make_model()
    star = make_star(model=model, skip_eval=True)
    fit(star, 1)
    references = [weakref.ref(model), weakref.ref(star)]
    del model, star
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_the_explicit_form_is_the_same_as_fit(make_star, make_model):
    one, other = make_model(), make_model()
    fit(make_star("one", one), 2)
    star = make_star("other", other)
    other.fit(
        star.dataset,
        epochs=2,
        initial_epoch=star.initial_epoch,
        callbacks=[star],
        verbose=0,
        shuffle=False,
    )
    assert_equal_weights(one, other)


def test_one_trace_of_the_train_step_and_the_schedules_steps(make_star, make_model):
    model = make_model()
    traces = []
    train_step = model.train_step

    def counted(state, data):
        traces.append(1)
        return train_step(state, data)

    object.__setattr__(model, "train_step", counted)
    steps = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    star = make_star(model=model, schedule="exponential", start_steps=3, growth=1.5)
    fit(star, 3, [counter])
    assert len(traces) == 1
    assert steps == [*range(3), *range(4), *range(6)]


def test_every_iteration_trains_the_base_with_a_fresh_optimizer(make_star, make_model):
    model = make_model()
    star = make_star(model=model, start_steps=2, add_steps=0)
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            slots = [np.abs(np.array(v.value)).max() for v in model.optimizer.variables]
            seen.append((weights(model), int(model.optimizer.iterations), slots))

    base = weights(model)
    fit(star, 3, [Spy()])
    for start, iterations, slots in seen:
        assert iterations == 0
        assert slots == seen[0][2]
        for value, expected in zip(start, base, strict=True):
            assert np.array_equal(value, expected)
    assert not np.array_equal(weights(model)[0], base[0])
    assert int(model.optimizer.iterations) == 2


def test_fit_epoch_by_epoch_equals_one_fit(make_star, make_model):
    one, many = make_model(), make_model()
    fit(make_star("one", one), 3)
    star = make_star("many", many)
    for epoch in range(3):
        assert star.initial_epoch == epoch
        fit(star, epoch + 1)
    for first, second in zip(weights(one), weights(many), strict=True):
        assert np.array_equal(first, second)


def test_model_loss_counts_exactly_the_response_tokens(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    fit(star, 1)
    x, y, sample_weight = next(star.dataset.as_numpy_iterator())
    tokenizer = model.preprocessor.tokenizer
    for segments, targets, weight in zip(
        x["segment_ids"], y, sample_weight, strict=True
    ):
        for segment in range(1, segments.max() + 1):
            learned = targets[(segments == segment) & (weight > 0)]
            assert learned[-1] == tokenizer.end_token_id
            text = tokenizer.detokenize(learned[:-1].tolist())
            assert text.startswith(" ")
            assert text.endswith(".")
            assert "A:" not in text


# === Bad input ===


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"config": {"batch_size": 3}}, "config"),
        ({"steps": 40}, "steps"),
        (
            {"config": make_config(temperature=1.0), "sampler": scripted()},
            "temperature",
        ),
    ],
)
def test_bad_arguments_are_named_by_the_constructor(
    make_model, doubling, tmp_path, arguments, name
):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        StarIterationCallback(make_model(), doubling, tmp_path, **arguments)


@pytest.mark.parametrize("name", ["sampler", "eval_sampler"])
def test_a_sampler_of_another_model_is_refused(make_model, doubling, tmp_path, name):
    sampler = BatchSampler(make_model(), max_new_tokens=4)
    with pytest.raises(ValueError, match=f"`{name}`. Expected a sampler of the model"):
        StarIterationCallback(make_model(), doubling, tmp_path, **{name: sampler})


@pytest.mark.parametrize("name", ["sampler", "eval_sampler"])
@pytest.mark.parametrize("value", ["batch", ScriptedSampler, len, 5])
def test_what_is_no_sampler_is_refused(make_model, doubling, tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"`{name}`. Expected `None` or .*\.Sampler`"):
        StarIterationCallback(make_model(), doubling, tmp_path, **{name: value})


def test_an_answer_that_its_own_task_does_not_read_is_named_at_the_start(make_star):
    class Unreadable(Doubling):
        def extract_answer(self, completion):
            return None

    with pytest.raises(
        ValueError, match="'double-0' .*does not read as its answer '0'"
    ):
        fit(make_star(task=Unreadable(), direct=True, skip_eval=True), 1)


def test_a_sampler_that_leaves_out_a_request_is_named(make_star):
    class Lazy(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                yield batch[:-1]

    with pytest.raises(ValueError, match="left out 2 of 6 requests.*'double-104'"):
        fit(make_star(sampler=Lazy(half_right)), 1)


def test_loss_that_is_no_weighted_mean_is_refused(make_star, make_model):
    model = make_model()
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
    )
    with pytest.raises(
        ValueError, match="sum_over_batch_size.*mean_with_sample_weight"
    ):
        fit(make_star(model=model), 1)


def test_used_optimizer_is_refused(make_star, make_model):
    model = make_model()
    model.optimizer.iterations.assign(3)
    with pytest.raises(ValueError, match="already made 3 steps"):
        fit(make_star(model=model), 1)


@pytest.mark.parametrize("scaled", [False, True])
def test_an_optimizer_that_averages_weights_is_refused(make_star, make_model, scaled):
    model = make_model()
    optimizer = keras.optimizers.AdamW(1e-3, use_ema=True)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer)
    with pytest.raises(ValueError, match="`use_ema`. Expected False.*without it"):
        fit(make_star(model=model), 1)


def test_rationales_longer_than_a_row_are_not_trained_on(make_star):
    def talkative(request):
        number = int(request.name.removeprefix("double-"))
        steps = " Let me see." * (number % 3)
        return f"{steps} The answer is {2 * number}."

    star = make_star(sampler=scripted(talkative), sequence_length=58)
    fit(star, 1)
    selections = star.run.samples.load_selection(1)
    for selection in selections:
        is_long = int(selection.problem.removeprefix("double-")) % 3 == 2
        assert selection.reason == ("too_long" if is_long else "")
    assert star.metrics[1]["not_kept/too_long"] == len(selections) / 3


def test_rows_that_hold_no_rationale_are_an_error(make_star):
    message = "`sequence_length`. Expected at least [0-9]+, .* of 18 rationales"
    with pytest.raises(ValueError, match=message):
        fit(make_star(sequence_length=30), 1)


def test_an_example_beyond_the_models_positions_is_refused(make_star, make_model):
    # Rows of 128 tokens hold it, and a scripted sampler does not ask the model.
    star = make_star(model=make_model(num_layers=1, max_sequence_length=20))
    with pytest.raises(ValueError, match="more than the 20 of the model"):
        fit(star, 1)


def clueless(request):
    return " Hm."


def test_iteration_that_keeps_nothing_goes_on_with_the_base(
    make_star, make_model, capsys
):
    model = make_model()
    base = weights(model)
    star = make_star(model=model, sampler=scripted(clueless))
    history = star.fit(2).history
    assert history["num_rationales"] == [0, 0]
    assert history["unparsed"] == [1, 1]
    assert "iteration 1 kept no rationale" in capsys.readouterr().out
    for value, expected in zip(weights(model), base, strict=True):
        assert np.array_equal(value, expected)


def test_iteration_that_keeps_nothing_stops_if_asked(make_star):
    star = make_star(sampler=scripted(clueless), on_empty="stop")
    assert len(fit(star, 5).history["num_rationales"]) == 1
    star = make_star(sampler=scripted(clueless), on_empty="stop")
    assert fit(star, 1).history == {}  # the same call ends as it did
    with pytest.raises(ValueError, match="`on_empty`.*iteration 1.*no rationale"):
        fit(star, 5)
    star = make_star(sampler=scripted(clueless))
    assert len(fit(star, 2).history["num_rationales"]) == 1


def test_iteration_that_has_copies_to_train_on_does_not_stop(make_star):
    def forgetful(request):
        return half_right(request) if request.seed[0] == 1 else clueless(request)

    arguments = {"on_empty": "stop", "copy_n": 1}
    star = make_star(sampler=scripted(forgetful), **arguments)
    assert fit(star, 2).history["num_rationales"] == [18, 0]
    star = make_star(sampler=scripted(forgetful), **arguments)
    # The third has nothing of the second to copy.
    assert fit(star, 9).history["num_examples"] == [0]


def test_nan_loss_stops_the_run_and_saves_nothing_of_it(make_star, make_model):
    model = make_model()
    model.optimizer.learning_rate = 1e30
    star = make_star(model=model, start_steps=8, checkpoint_steps=2)
    with pytest.raises(FloatingPointError, match="iteration 1.* rate is 1.0.*e.30"):
        fit(star, 1)
    assert [line["iteration"] for line in metrics(star)] == [0]
    assert star.run.checkpoints.weights.names() == []
    assert star.run.checkpoints.training.names() == []


# === What is printed ===


def test_a_run_prints_its_phases_a_table_and_one_problem_twice(make_star, capsys):
    # The problem that the base model fails is solved by the final model.
    def learns(request):
        number = int(request.name.removeprefix("double-"))
        right = request.seed[0] or number % 2
        return f" The answer is {2 * number if right else 7}."

    make_star(sampler=scripted(learns)).fit(1)
    printed = capsys.readouterr().out
    for text in (
        "base model, evaluate: 6 completions",
        "iteration 1, sample: 24 completions",
        "iteration 1, train: 2 steps",
        "iteration 1, evaluate: 6 completions",
        "problem double-100 by the base model: incorrect",
        "problem double-100 by the model of iteration 1: correct",
        "Q: What is twice 100?",
        "The answer is 7.",
        "The answer is 200.",
        "kept 24 rationales: 100.0% of the problems unaided, 0.0% rationalized",
        "\nrationales: 17.8 tokens on average\n",
    ):
        assert text in printed
    table = [line.split() for line in printed.splitlines()]
    assert ["even", "0.0%", "100.0%", "+100.0"] in table
    assert ["odd", "100.0%", "100.0%", "+0.0"] in table
    # A file has whole lines, and no bar.
    assert "\r" not in printed and "\x1b" not in printed


def test_verbose_0_prints_nothing(make_star, capsys):
    fit(make_star(), 1)
    assert capsys.readouterr() == ("", "")
