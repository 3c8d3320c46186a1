import os
import resource
import signal

import keras
import numpy as np
import pytest

from star_keras.sampling import BatchSampler
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.training.dataset import feed_token_ids
from star_keras.utils.json_lines import read_json_lines
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    examples,
    fit,
    half_right,
    metrics,
    samples,
    scripted,
    training_prompts,
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
    for plot in ("accuracy.png", "kept.png"):
        assert (star.run_dir / plot).read_bytes().startswith(b"\x89PNG")


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


# === Switches ===


def test_no_training_row_holds_a_hint_unless_asked(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    fit(star, 1)
    for prompt in training_prompts(star, model):
        assert "(" not in prompt
    star = make_star("shown", make_model(), p_show_hint_save=1.0)
    fit(star, 1)
    assert sum("(" in prompt for prompt in training_prompts(star, model)) == 6
    star = make_star("some", make_model(), p_show_hint_save=0.5)
    fit(star, 1)
    assert 0 < sum("(" in prompt for prompt in training_prompts(star, model)) < 6


def test_hints_are_in_the_prompts_of_rationalizations_only(make_star):
    sampler = scripted()
    star = make_star(sampler=sampler, skip_eval=True)
    fit(star, 1)
    plain, hinted = sampler.prompts[:24], sampler.prompts[24:]
    assert all(p.startswith("Q: What is twice 50?\nA: 50 + 50") for p in plain)
    assert all(p.startswith("Q: What is twice 50? (100)\nA: 50 + 50") for p in hinted)
    assert all("(" not in p for p in plain)
    assert len(hinted) == 12


def test_no_rationalization(make_star):
    star = make_star(rationalize=False)
    history = fit(star, 1).history
    assert "rationalization_accuracy" not in history
    assert history["num_rationales"] == [12]


def test_p_rationalization_tries_a_share_of_the_failed(make_star):
    sampler = scripted()
    fit(make_star(sampler=sampler, p_rationalization=0.5, skip_eval=True), 1)
    assert 0 < len(sampler.prompts) - 24 < 12


def test_no_few_shot_prompt_and_few_shot_training(make_star, make_model):
    model = make_model()
    sampler = scripted()
    star = make_star(sampler=sampler, few_shot=False)
    fit(star, 1)
    assert all(
        p.startswith("Q: What is twice") and "50?" not in p for p in sampler.prompts
    )
    star = make_star("train", model, few_shot_train=True)
    fit(star, 1)
    assert all(
        p.startswith("Q: What is twice 50?") for p in training_prompts(star, model)
    )


def test_n_train_samples_draws_anew_each_iteration(make_star):
    star = make_star(n_train_samples=10, n_eval_samples=4)
    fit(star, 2)
    drawn = [{s.problem for s in samples(star, n)} for n in (1, 2)]
    assert [len(d) for d in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    held_out = [{s.problem for s in samples(star, n, "evaluation")} for n in (0, 1, 2)]
    assert len(held_out[0]) == 4
    assert held_out[0] == held_out[1] == held_out[2]


def test_copy_n_trains_again_on_earlier_rationales(make_star):
    star = make_star(copy_n=1)
    fit(star, 3)
    assert len(examples(star)) == 36


def test_direct_trains_on_answers_without_sampling(make_star, make_model):
    sampler, model = scripted(), make_model()
    star = make_star(model=model, sampler=sampler, direct=True, skip_eval=True)
    fit(star, 1)
    assert sampler.prompts == []
    assert len(examples(star)) == 24
    ids = examples(star)[0].response_ids[:-1].tolist()
    assert model.preprocessor.tokenizer.detokenize(ids) == " The answer is 0."
    assert [s.kind for s in samples(star, 1, "direct")] == ["direct"] * 24
    star = make_star("copied", direct=True, skip_eval=True, copy_n=1)
    fit(star, 2)
    assert len(examples(star)) == 48


def test_check_working_rejects_right_answers_after_wrong_steps(make_star, make_model):
    class Strict(Doubling):
        def working_is_valid(self, completion, problem):
            return "1" not in problem.question

    star = make_star(task=Strict(), check_working=True)
    history = fit(star, 1).history
    verdicts = [s.verdict for s in samples(star, 1)]
    # Odd numbers with a 1 in them: 1, 11, 13, 15, 17, 19, 21.
    assert verdicts.count("invalid_working") == 7
    assert history["train_accuracy"] == [5 / 24]
    # Evaluation looks at the answer alone.
    assert history["eval_accuracy"] == [0.5]


# === Going on, and starting over ===


def test_killed_run_goes_on_and_ends_the_same(make_star, make_model):
    class KillError(Exception):
        pass

    class KilledSampler(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                if len(self.prompts) > 60:
                    raise KillError
                yield batch

    whole_model = make_model()
    whole = make_star("whole", whole_model)
    fit(whole, 3)
    with pytest.raises(KillError):
        fit(make_star("cut", sampler=KilledSampler(half_right)), 3)

    model = make_model()
    sampler = scripted()
    star = make_star("cut", model, sampler=sampler)
    assert star.initial_epoch == 1
    fit(star, 3)
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


@pytest.mark.parametrize("iteration", [1, 2])
def test_kill_between_the_weights_and_their_note_loses_neither(
    make_star, make_model, monkeypatch, iteration
):
    class KillError(Exception):
        pass

    whole_model = make_model()
    whole = make_star("whole", whole_model)
    fit(whole, 3)
    cut = make_star("cut")
    finish = cut.run.finish

    def killed(number, phase, metrics):
        if (number, phase) == (iteration, "train"):
            raise KillError
        finish(number, phase, metrics)

    monkeypatch.setattr(cut.run, "finish", killed)
    with pytest.raises(KillError):
        fit(cut, 3)

    model = make_model()
    star = make_star("cut", model)
    assert star.initial_epoch == iteration - 1
    fit(star, 3)
    assert metrics(star) == metrics(whole)
    assert_equal_weights(model, whole_model)
    assert len(star.run.checkpoints.weights.names()) == 1


def test_schedule_may_be_any_function(make_star):
    fit(make_star(steps=lambda iteration, steps_per_pass: 2), 1)
    star = make_star(steps=lambda iteration, steps_per_pass: 2)
    fit(star, 2)
    assert len(metrics(star)) == 3


class Terminated(ScriptedSampler):
    """Gets a SIGTERM when it has sampled so many prompts."""

    def __init__(self, after):
        super().__init__(half_right)
        self._after = after

    def sample(self, requests, *, stop=()):
        for batch in super().sample(requests, stop=stop):
            if self._after is not None and len(self.prompts) >= self._after:
                self._after = None
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class TerminateAtStep(keras.callbacks.Callback):
    """Gets a SIGTERM in a step, counted over all iterations."""

    def __init__(self, step):
        super().__init__()
        self._left = step

    def on_train_batch_begin(self, batch, logs=None):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("prompts", [4, 20, 40, 47, 71])
def test_sigterm_while_sampling_loses_no_batch(make_star, make_model, prompts):
    """In the first evaluation, the rationales, the rationalizations, ..."""
    whole_model, model = make_model(), make_model()
    whole = make_star("whole", whole_model)
    fit(whole, 2)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as error:
        fit(make_star("cut", sampler=Terminated(prompts)), 2)
    assert error.value.code == 75
    assert signal.getsignal(signal.SIGTERM) == handler
    sampler = scripted()
    star = make_star("cut", model, sampler=sampler)
    fit(star, 2)
    # 6 held-out problems three times, 24 + 12 twice, and none of them again.
    stored = -(-prompts // 5) * 5
    assert 90 - stored - 4 <= len(sampler.prompts) <= 90 - prompts
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)
    assert_equal_weights(model, whole_model)


@pytest.mark.parametrize("step", [1, 3, 7, 9])
def test_sigterm_in_a_training_goes_on_at_its_step(make_star, make_model, step):
    steps = {"start_steps": 4, "add_steps": 2, "checkpoint_steps": 2}
    whole_model, model = make_model(), make_model()
    whole = make_star("whole", whole_model, **steps)
    fit(whole, 2)
    with pytest.raises(SystemExit, match="75"):
        fit(make_star("cut", **steps), 2, [TerminateAtStep(step)])
    star = make_star("cut", model, **steps)
    made = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: made.append(batch)
    )
    fit(star, 2, [counter])
    # The signal comes after the check of its own step, which is finished.
    assert len(made) == 10 - step
    assert metrics(star) == metrics(whole)
    assert_equal_weights(model, whole_model)


def test_full_disk_is_named_and_the_run_goes_on_when_there_is_room(make_star):
    whole = make_star("whole", skip_eval=True)
    fit(whole, 1)
    star = make_star("cut", skip_eval=True)
    # In the middle of a line of the journal no file may grow further.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large.*make room.*iteration_0001"):
            fit(star, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    cut = star.run.samples.journal_path(1, "rationale").read_bytes()
    assert len(cut) == 4000 and not cut.endswith(b"\n")
    sampler = scripted()
    star = make_star("cut", skip_eval=True, sampler=sampler)
    fit(star, 1)
    assert len(sampler.prompts) < 36
    assert metrics(star) == metrics(whole)
    assert all_samples(star) == all_samples(whole)


def test_a_finished_phase_is_not_sampled_again(make_star):
    fit(make_star(), 2)
    star = make_star(sampler=ScriptedSampler(lambda request: 1 / 0))
    before = all_samples(star)
    fit(star, 2)
    assert all_samples(star) == before


def test_changed_samples_are_an_error_and_not_trained_on(make_star):
    star = make_star()
    with pytest.raises(SystemExit):
        fit(star, 1, [TerminateAtStep(1)])
    path = star.run.samples.path(1, "rationale")
    path.write_text("".join(path.read_text().splitlines(True)[1:]))
    with pytest.raises(ValueError, match="does not hold the samples of this run"):
        fit(make_star(), 1)


def test_deleted_checkpoint_of_a_training_starts_it_again(make_star, make_model):
    steps = {"start_steps": 6, "checkpoint_steps": 2}
    whole_model, model = make_model(), make_model()
    fit(make_star("whole", whole_model, **steps), 1)
    star = make_star("cut", **steps)
    with pytest.raises(SystemExit):
        fit(star, 1, [TerminateAtStep(5)])
    found = star.run.checkpoints.training.names()
    assert found == ["iteration_0001_step_00000004", "iteration_0001_step_00000005"]
    for name in found:
        star.run.checkpoints.training.delete(name)
    fit(make_star("cut", model, **steps), 1)
    assert_equal_weights(model, whole_model)


def test_two_runs_with_one_seed_write_the_same(make_star, make_model):
    def run(name, seed):
        model = make_model()
        sampler = BatchSampler(model, max_new_tokens=8, temperature=1.0, seed=seed)
        star = make_star(name, model, sampler=sampler, seed=seed, n_train_samples=6)
        fit(star, 2)
        return metrics(star), all_samples(star)

    first = run("first", 1)
    assert run("second", 1) == first
    assert run("third", 2) != first


def test_rewind_runs_iterations_again(make_star, make_model):
    star = make_star(keep_weights=2)
    fit(star, 3)
    before = metrics(star)
    again = make_star(keep_weights=2)
    again.rewind(3)
    assert again.initial_epoch == 2
    fit(again, 3)
    assert metrics(again) == before
    assert (again.run_dir / "discarded-1" / "samples" / "iteration_0003").exists()
    with pytest.raises(ValueError, match="weights of iteration 1, which are gone"):
        again.rewind(2)
    with pytest.raises(ValueError, match="1 to 4.*iteration=9"):
        again.rewind(9)


def test_run_directory_of_another_configuration_is_refused(make_star, make_model):
    def start(**kwargs):
        fit(make_star(**kwargs), 0)

    start()
    start()
    start(keep_weights=3, on_empty="stop")  # free settings
    with pytest.raises(ValueError, match="another configuration.*copy_n: 0 there, 3"):
        start(copy_n=3)
    model = make_model()
    model.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="optimizer"):
        start(model=model)
    with pytest.raises(ValueError, match="problems_crc32"):
        start(task=Doubling(train=23))
    with pytest.raises(ValueError, match="base_weights_crc32.*load the base model"):
        start(model=make_model(seed=1))
    with pytest.raises(ValueError, match="dtype: 'float32' there, 'mixed_bfloat16'"):
        start(model=make_model(dtype="mixed_bfloat16"))
    with pytest.raises(ValueError, match="steps: 'None' there, '<function"):
        start(steps=lambda iteration, steps_per_pass: 2)


def test_wrong_initial_epoch_is_an_error(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    fit(star, 1)
    with pytest.raises(ValueError, match="`initial_epoch`.*the 1 iterations of"):
        model.fit(star.dataset, epochs=2, callbacks=[star], verbose=0, shuffle=False)


def test_steps_per_epoch_and_another_model_are_errors(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    with pytest.raises(ValueError, match="`steps_per_epoch`.*the schedule decides"):
        model.fit(
            star.dataset, steps_per_epoch=3, callbacks=[star], verbose=0, shuffle=False
        )
    other = make_model()
    feed_token_ids(other)
    with pytest.raises(ValueError, match="`model`. Expected the model that is fitted"):
        other.fit(star.dataset, callbacks=[star], verbose=0, shuffle=False)


def test_missing_weights_are_an_error(make_star):
    fit(make_star(), 1)
    star = make_star()
    star.run.checkpoints.weights.delete("iteration_0001")
    with pytest.raises(ValueError, match="checkpoint .*iteration_0001 is missing"):
        fit(star, 2)


# === Bad input ===


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


def test_too_long_example_is_named(make_star):
    with pytest.raises(
        ValueError, match="problem 'double-.*more than sequence_length=20"
    ):
        fit(make_star(sequence_length=20), 1)


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
    with pytest.raises(ValueError, match="Iteration 1 of .* kept no rationale"):
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
    star = make_star(model=model, start_steps=8)
    with pytest.raises(FloatingPointError, match="loss of iteration 1 is nan"):
        fit(star, 1)
    assert [line["iteration"] for line in metrics(star)] == [0]
    assert star.run.checkpoints.weights.names() == []


# === Other callbacks ===


def test_early_stop_by_another_callback_leaves_the_iteration_unfinished(make_star):
    class StopAtOnce(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    star = make_star(start_steps=5)
    fit(star, 3, [StopAtOnce()])
    assert star.initial_epoch == 0


class LearningRates(keras.callbacks.Callback):
    """The learning rate of each iteration's steps."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(round(float(self.model.optimizer.learning_rate), 6))


@pytest.mark.parametrize("before", [False, True])
def test_a_learning_rate_scheduler_works_on_either_side(make_star, make_model, before):
    model, rates = make_model(), LearningRates()
    star = make_star(model=model, add_steps=0)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1))
    order = [scheduler, star] if before else [star, scheduler]
    model.fit(
        star.dataset, epochs=2, callbacks=[*order, rates], verbose=0, shuffle=False
    )
    assert rates.seen == [0.01, 0.01, 0.005, 0.005]


def test_reduce_lr_on_plateau_has_effect_and_survives_a_resume(make_star, make_model):
    def fit_with(star, epochs):
        rates = LearningRates()
        reduce = keras.callbacks.ReduceLROnPlateau(
            monitor="eval_accuracy", mode="max", factor=0.5, patience=1, min_lr=0
        )
        fit(star, epochs, [reduce, rates])
        return rates.seen

    # The accuracy never rises: from the second iteration on the rate is halved.
    star = make_star(add_steps=0)
    assert fit_with(star, 3) == [1e-3] * 4 + [5e-4] * 2
    assert [line.get("learning_rate") for line in star.metrics] == [
        *(None, pytest.approx(1e-3), pytest.approx(1e-3), pytest.approx(5e-4))
    ]
    # Another process begins with the rate of the last iteration.
    assert fit_with(make_star(add_steps=0), 4) == [5e-4] * 2


@pytest.mark.parametrize("before", [False, True])
def test_early_stopping_ends_the_fit_after_a_whole_iteration(
    make_star, make_model, before
):
    model = make_model()
    star = make_star(model=model)

    class StopAfterTwo(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.stop_training = True

    order = [StopAfterTwo(), star] if before else [star, StopAfterTwo()]
    model.fit(star.dataset, epochs=5, callbacks=order, verbose=0, shuffle=False)
    assert star.initial_epoch == 2
    assert [line["iteration"] for line in star.metrics] == [0, 1, 2]


def test_early_stopping_on_the_held_out_accuracy(make_star):
    stopping = keras.callbacks.EarlyStopping("eval_accuracy", mode="max", patience=1)
    star = make_star()
    fit(star, 9, [stopping])
    assert star.initial_epoch == 2


def test_the_callback_itself_is_no_further_callback(make_star):
    star = make_star()
    with pytest.raises(ValueError, match="`callbacks`.*besides this one"):
        fit(star, 1, [star])


def test_an_error_of_another_callback_lets_go_of_the_directory(make_star):
    class Broken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyError("mine")

    handler = signal.getsignal(signal.SIGTERM)
    star = make_star()
    with pytest.raises(KeyError, match="mine"):
        fit(star, 1, [Broken()])
    assert signal.getsignal(signal.SIGTERM) == handler
    assert (star.run_dir / "lock").read_text() == ""


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


# === LoRA ===


def test_adapters_start_anew_each_iteration_and_nothing_else_changes(
    make_star, make_model
):
    model = make_model()
    model.backbone.enable_lora(2)
    model.lm_head.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(1e-2), weighted_metrics=[])
    first = {v.path: np.array(v.value) for v in model.weights}
    starts = []

    class SeeStart(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                starts.append({v.path: np.array(v.value) for v in model.weights})

    fit(make_star(model=model), 2, [SeeStart()])
    assert len(starts) == 2
    for start in starts:
        for path, value in first.items():
            np.testing.assert_array_equal(start[path], value)
    changed = {v.path for v in model.weights if (v.value != first[v.path]).any()}
    assert changed == {v.path for v in model.trainable_variables}
    assert all("lora_kernel" in path for path in changed)
