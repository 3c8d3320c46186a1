import functools
import io
import itertools
import json
import os
import resource
import signal

import keras
import numpy as np
import pytest
import sentencepiece
from keras_hub import models as hub
from keras_hub import tokenizers as hub_tokenizers
from tokenizers import pre_tokenizers

from star_keras import tasks
from star_keras.callbacks import ExponentialSteps, StarIterationCallback, SteadySteps
from star_keras.json_lines import read_json_lines
from star_keras.rationales import RationaleStore
from star_keras.sampling import BatchSampler, Completion, Sampler
from tests.conftest import Doubling


class ScriptedSampler(Sampler):
    """Answers every second problem right; hinted, three out of four.

    Stands in for a model that can do something, which takes minutes to train.
    """

    def __init__(self, batch_size=5):
        self.batch_size = batch_size
        self.prompts = []

    def sample(self, requests, *, stop=()):
        for start in range(0, len(requests), self.batch_size):
            batch = []
            for i, request in enumerate(requests[start:][: self.batch_size], start):
                self.prompts.append(request.prompt)
                number = int(request.name.removeprefix("double-"))
                hinted = request.seed[-1]
                right = number % 4 if hinted else number % 2
                answer = 2 * number if right else 7
                text = f" {number} + {number}. The answer is {answer}."
                if number == 8:
                    text = " Who knows?"
                batch.append(
                    (i, Completion(text=text, num_tokens=9, finish_reason="stop"))
                )
            yield batch


@pytest.fixture
def make_model(make_model):
    return functools.partial(make_model, num_layers=1, hidden_dim=16)


@pytest.fixture
def make_star(make_model, doubling, tmp_path):
    def make(run_dir="run", model=None, sampler=None, **kwargs):
        arguments = {
            "task": doubling,
            "steps": SteadySteps(2, add=1),
            "batch_size": 2,
            "row_length": 128,
        }
        return StarIterationCallback(
            model or make_model(),
            sampler=sampler or ScriptedSampler(),
            run_dir=tmp_path / run_dir,
            **{**arguments, **kwargs},
        )

    return make


def fit(star, epochs, callbacks=(), **kwargs):
    return star._language_model.fit(
        star.dataset,
        epochs=epochs,
        callbacks=[star, *callbacks],
        verbose=0,
        shuffle=False,
        **kwargs,
    )


def samples(star, iteration):
    return RationaleStore(star.run_dir / "samples").load(iteration)


def metrics(star):
    text = (star.run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [
        {key: v for key, v in line.items() if not key.endswith("_seconds")}
        for line in lines
    ]


def training_prompts(star):
    """The distinct prompts of what is trained on now, end of prompt to start."""
    tokenizer = star._preprocessor.tokenizer
    return [tokenizer.detokenize(e.prompt_ids.tolist()) for e in star._examples]


def weights(model):
    return [np.array(v.value) for v in model.trainable_variables]


# === The loop ===


def test_figures_are_in_the_logs_and_the_metrics_file(make_star, tmp_path):
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
    assert history["steps"] == [2, 3]
    assert [line["iteration"] for line in metrics(star)] == [0, 1, 2]
    assert metrics(star)[2]["eval_accuracy/odd"] == 1
    assert "eval_accuracy/odd" in (tmp_path / "log.csv").read_text().splitlines()[0]
    for plot in ("accuracy.png", "kept.png"):
        assert (star.run_dir / plot).read_bytes().startswith(b"\x89PNG")


def test_everything_sampled_is_on_disk_with_its_verdict(make_star):
    star = make_star()
    fit(star, 1)
    found = samples(star, 1)
    kinds = [r.prompt_kind for r in found]
    assert kinds == ["rationale"] * 24 + ["rationalization"] * 12 + ["evaluation"] * 6
    by_key = {r.key: r for r in found}
    assert by_key["rationale", "double-3", 0].verdict == "correct"
    assert by_key["rationale", "double-3", 0].weight == 1
    assert by_key["rationale", "double-6", 0].verdict == "incorrect"
    assert by_key["rationale", "double-6", 0].answer == "7"
    assert by_key["rationalization", "double-6", 0].weight == 1
    assert by_key["rationale", "double-8", 0].verdict == "unparsed"
    assert all(r.weight == 0 for r in found if r.verdict != "correct")
    assert all(r.weight == 0 for r in found if r.prompt_kind == "evaluation")
    assert [r.prompt_kind for r in samples(star, 0)] == ["evaluation"] * 6


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
    star = make_star(model=model, steps=ExponentialSteps(3, growth=1.5))
    fit(star, 3, [counter])
    assert len(traces) == 1
    assert steps == [*range(3), *range(4), *range(6)]


def test_every_iteration_trains_the_base_with_a_fresh_optimizer(make_star, make_model):
    model = make_model()
    star = make_star(model=model, steps=SteadySteps(2, add=0))
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
        fit(star, epoch + 1, initial_epoch=epoch)
    for first, second in zip(weights(one), weights(many), strict=True):
        assert np.array_equal(first, second)


def test_model_loss_counts_exactly_the_response_tokens(make_star):
    star = make_star()
    fit(star, 1)
    x, y, sample_weight = next(star._training_batches())
    tokenizer = star._preprocessor.tokenizer
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


def test_no_training_row_holds_a_hint_unless_asked(make_star):
    star = make_star()
    fit(star, 1)
    for prompt in training_prompts(star):
        assert "(" not in prompt
    star = make_star("shown", p_show_hint_save=1.0)
    fit(star, 1)
    assert sum("(" in prompt for prompt in training_prompts(star)) == 6
    star = make_star("some", p_show_hint_save=0.5)
    fit(star, 1)
    assert 0 < sum("(" in prompt for prompt in training_prompts(star)) < 6


def test_hints_are_in_the_prompts_of_rationalizations_only(make_star):
    sampler = ScriptedSampler()
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
    sampler = ScriptedSampler()
    fit(make_star(sampler=sampler, p_rationalization=0.5, skip_eval=True), 1)
    assert 0 < len(sampler.prompts) - 24 < 12


def test_no_few_shot_prompt_and_few_shot_training(make_star):
    sampler = ScriptedSampler()
    star = make_star(sampler=sampler, few_shot=False)
    fit(star, 1)
    assert all(
        p.startswith("Q: What is twice") and "50?" not in p for p in sampler.prompts
    )
    star = make_star("train", few_shot_train=True)
    fit(star, 1)
    assert all(p.startswith("Q: What is twice 50?") for p in training_prompts(star))


def test_n_train_samples_draws_anew_each_iteration(make_star):
    star = make_star(n_train_samples=10, n_eval_samples=4)
    fit(star, 2)
    drawn = [
        {r.problem for r in samples(star, n) if r.prompt_kind == "rationale"}
        for n in (1, 2)
    ]
    assert [len(d) for d in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    held_out = [
        {r.problem for r in samples(star, n) if r.prompt_kind == "evaluation"}
        for n in (0, 1, 2)
    ]
    assert len(held_out[0]) == 4
    assert held_out[0] == held_out[1] == held_out[2]


def test_n_train_samples_are_even_over_classes(make_star):
    class Uneven(Doubling):
        def problems(self, split):
            problems = super().problems(split)
            few = ("double-1", "double-3", "double-5", "double-101")
            return [p for p in problems if p.problem_class == "even" or p.id in few]

    star = make_star(task=Uneven(), n_train_samples=10)
    drawn = [p.problem_class for p in star._draw_problems(1)]
    assert drawn.count("odd") == 3
    assert drawn.count("even") == 7
    star = make_star("some", task=Uneven(), n_train_samples=4)
    drawn = [p.problem_class for p in star._draw_problems(1)]
    assert drawn.count("odd") == drawn.count("even") == 2


def test_copy_n_trains_again_on_earlier_rationales(make_star):
    star = make_star(copy_n=1)
    fit(star, 3)
    assert len(star._examples) == 36


def test_direct_trains_on_answers_without_sampling(make_star):
    sampler = ScriptedSampler()
    star = make_star(sampler=sampler, direct=True, skip_eval=True)
    fit(star, 1)
    assert sampler.prompts == []
    assert len(star._examples) == 24
    ids = star._examples[0].response_ids[:-1].tolist()
    assert star._preprocessor.tokenizer.detokenize(ids) == " The answer is 0."
    assert [r.prompt_kind for r in samples(star, 1)] == ["direct"] * 24
    star = make_star("copied", direct=True, skip_eval=True, copy_n=1)
    fit(star, 2)
    assert len(star._examples) == 48


def test_check_working_rejects_right_answers_after_wrong_steps(make_star, make_model):
    class Strict(Doubling):
        def working_is_valid(self, completion, problem):
            return "1" not in problem.question

    star = make_star(task=Strict(), check_working=True)
    history = fit(star, 1).history
    verdicts = [r.verdict for r in samples(star, 1) if r.prompt_kind == "rationale"]
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
        fit(make_star("cut", sampler=KilledSampler()), 3)

    model = make_model()
    sampler = ScriptedSampler()
    star = make_star("cut", model, sampler=sampler)
    assert star.initial_epoch == 1
    fit(star, 3, initial_epoch=1)
    assert metrics(star) == metrics(whole)
    for n in range(4):
        assert samples(star, n) == samples(whole, n)
    for first, second in zip(weights(model), weights(whole_model), strict=True):
        assert np.array_equal(first, second)


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
    finish = cut._run.finish

    def killed(number, phase, figures):
        if (number, phase) == (iteration, "train"):
            raise KillError
        finish(number, phase, figures)

    monkeypatch.setattr(cut._run, "finish", killed)
    with pytest.raises(KillError):
        fit(cut, 3)
    cut._run.unlock()

    model = make_model()
    star = make_star("cut", model)
    assert star.initial_epoch == iteration - 1
    fit(star, 3, initial_epoch=star.initial_epoch)
    assert final_figures(star) == final_figures(whole)
    for first, second in zip(weights(model), weights(whole_model), strict=True):
        assert np.array_equal(first, second)
    assert len(star._run.weights.names()) == 1


def test_schedule_may_be_any_function(make_star):
    fit(make_star(steps=lambda iteration, examples: 2), 1)
    star = make_star(steps=lambda iteration, examples: 2)
    fit(star, 2, initial_epoch=1)
    assert len(metrics(star)) == 3


class Terminated(ScriptedSampler):
    """Gets a SIGTERM when it has sampled so many prompts."""

    def __init__(self, after):
        super().__init__()
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


def final_figures(star):
    timed = ("seconds", "per_second")
    return [
        {k: v for k, v in line.items() if not k.endswith(timed)}
        for line in read_json_lines(star.run_dir / "metrics.jsonl", set())
    ]


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
    sampler = ScriptedSampler()
    star = make_star("cut", model, sampler=sampler)
    fit(star, 2, initial_epoch=star.initial_epoch)
    # 6 held-out problems three times, 24 + 12 twice, and none of them again.
    stored = -(-prompts // 5) * 5
    assert 90 - stored - 4 <= len(sampler.prompts) <= 90 - prompts
    assert final_figures(star) == final_figures(whole)
    for n in range(3):
        assert samples(star, n) == samples(whole, n)
    for first, second in zip(weights(model), weights(whole_model), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("step", [1, 3, 7, 9])
def test_sigterm_in_a_training_goes_on_at_its_step(make_star, make_model, step):
    steps = {"steps": SteadySteps(4, add=2), "checkpoint_steps": 2}
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
    fit(star, 2, [counter], initial_epoch=star.initial_epoch)
    # The signal comes after the check of its own step, which is finished.
    assert len(made) == 10 - step
    assert final_figures(star) == final_figures(whole)
    for first, second in zip(weights(model), weights(whole_model), strict=True):
        assert np.array_equal(first, second)


def test_full_disk_is_named_and_the_run_goes_on_when_there_is_room(make_star):
    whole = make_star("whole", skip_eval=True)
    fit(whole, 1)
    star = make_star("cut", skip_eval=True)
    # In the middle of a line of the samples no file may grow further.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large.*make room.*iteration_0001"):
            fit(star, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    cut = (star.run_dir / "samples" / "iteration_0001.jsonl").read_bytes()
    assert len(cut) == 4000 and not cut.endswith(b"\n")
    sampler = ScriptedSampler()
    star = make_star("cut", skip_eval=True, sampler=sampler)
    fit(star, 1)
    assert len(sampler.prompts) < 36
    assert final_figures(star) == final_figures(whole)
    assert samples(star, 1) == samples(whole, 1)


def test_deleted_checkpoint_of_a_training_starts_it_again(make_star, make_model):
    steps = {"steps": SteadySteps(6), "checkpoint_steps": 2}
    whole_model, model = make_model(), make_model()
    fit(make_star("whole", whole_model, **steps), 1)
    star = make_star("cut", **steps)
    with pytest.raises(SystemExit):
        fit(star, 1, [TerminateAtStep(5)])
    found = star._run.training.names()
    assert found == ["iteration_0001_step_00000004", "iteration_0001_step_00000005"]
    for name in found:
        star._run.training.delete(name)
    fit(make_star("cut", model, **steps), 1)
    for first, second in zip(weights(model), weights(whole_model), strict=True):
        assert np.array_equal(first, second)


def test_two_runs_with_one_seed_write_the_same(make_star, make_model):
    def run(name, seed):
        model = make_model()
        sampler = BatchSampler(model, max_new_tokens=8, temperature=1.0, seed=seed)
        star = make_star(name, model, sampler=sampler, seed=seed, n_train_samples=6)
        fit(star, 2)
        return metrics(star), [samples(star, n) for n in range(3)]

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
    fit(again, 3, initial_epoch=2)
    assert metrics(again) == before
    assert (again.run_dir / "discarded-1" / "iteration_0003.jsonl").exists()
    with pytest.raises(ValueError, match="weights of iteration 1, which are gone"):
        again.rewind(2)
    with pytest.raises(ValueError, match="1 to 4.*iteration=9"):
        again.rewind(9)


def test_run_directory_of_another_configuration_is_refused(make_star, make_model):
    make_star()
    make_star()
    with pytest.raises(ValueError, match="another configuration.*copy_n: 0 there, 3"):
        make_star(copy_n=3)
    model = make_model()
    model.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="optimizer"):
        make_star(model=model)
    with pytest.raises(ValueError, match="problems_crc32"):
        make_star(task=Doubling(train=23))
    with pytest.raises(ValueError, match="base_weights_crc32"):
        make_star(model=make_model(seed=1))
    with pytest.raises(ValueError, match="dtype: 'float32' there, 'mixed_bfloat16'"):
        make_star(model=make_model(dtype="mixed_bfloat16"))


def test_wrong_initial_epoch_is_an_error(make_star):
    star = make_star()
    fit(star, 1)
    with pytest.raises(ValueError, match="Pass initial_epoch=1"):
        fit(star, 2)


def test_missing_weights_are_an_error(make_star):
    fit(make_star(), 1)
    star = make_star()
    star._run.weights.delete("iteration_0001")
    with pytest.raises(ValueError, match="checkpoint .*iteration_0001 is missing"):
        fit(star, 2, initial_epoch=1)


# === Bad input ===


def test_task_without_problems_is_an_error(make_star):
    with pytest.raises(ValueError, match="'doubling' has no problems in 'train'"):
        make_star(task=Doubling(train=0))
    with pytest.raises(ValueError, match="'doubling' has no problems in 'eval'"):
        make_star("other", task=Doubling(held_out=0))


def test_problem_without_an_answer_is_named(make_star):
    class Unanswered(Doubling):
        def problems(self, split):
            return [tasks.Problem(id="p17", question="q", answer=" ")]

    with pytest.raises(ValueError, match="Problem 'p17'.*has no answer"):
        make_star(task=Unanswered())


def test_problem_ids_must_be_unique(make_star):
    class Twice(Doubling):
        def problems(self, split):
            return super().problems(split) * 2

    with pytest.raises(ValueError, match="id 'double-0' twice"):
        make_star(task=Twice())


@pytest.mark.parametrize(
    "argument",
    [
        {"p_rationalization": 1.5},
        {"p_show_hint_save": -0.1},
        {"batch_size": 0},
        {"row_length": 0},
        {"copy_n": -1},
        {"keep_weights": 0},
        {"n_train_samples": 0},
        {"n_eval_samples": 0},
        {"on_empty": "sulk"},
    ],
)
def test_bad_arguments_are_named(make_star, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        make_star(**argument)


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
    with pytest.raises(ValueError, match="problem 'double-.*more than row_length=20"):
        fit(make_star(row_length=20), 1)


class Clueless(ScriptedSampler):
    def sample(self, requests, *, stop=()):
        for batch in super().sample(requests, stop=stop):
            yield [
                (i, Completion(text=" Hm.", num_tokens=3, finish_reason="stop"))
                for i, _ in batch
            ]


def test_iteration_that_keeps_nothing_goes_on_with_the_base(
    make_star, make_model, capsys
):
    model = make_model()
    base = weights(model)
    star = make_star(model=model, sampler=Clueless())
    history = fit(star, 2).history
    assert history["num_rationales"] == [0, 0]
    assert history["unparsed"] == [1, 1]
    assert "Iteration 1 kept no rationale" in capsys.readouterr().out
    for value, expected in zip(weights(model), base, strict=True):
        assert np.array_equal(value, expected)


def test_iteration_that_keeps_nothing_stops_if_asked(make_star, capsys):
    star = make_star(sampler=Clueless(), on_empty="stop")
    assert len(fit(star, 5).history["num_rationales"]) == 1
    star = make_star(sampler=Clueless(), on_empty="stop")
    with pytest.raises(ValueError, match="Iteration 1 of .* kept no rationale"):
        fit(star, 5, initial_epoch=star.initial_epoch)
    star = make_star(sampler=Clueless())
    fit(star, 2, initial_epoch=star.initial_epoch)
    assert "Stopping (on_empty='stop')" in capsys.readouterr().out


def test_iteration_that_has_copies_to_train_on_does_not_stop(make_star):
    class ForgetfulSampler(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            knows = requests[0].seed[0] == 1
            return (super() if knows else Clueless()).sample(requests, stop=stop)

    arguments = {"sampler": ForgetfulSampler(), "on_empty": "stop", "copy_n": 1}
    assert fit(make_star(**arguments), 2).history["num_rationales"] == [18, 0]
    star = make_star(**arguments)
    # The third has nothing of the second to copy.
    history = fit(star, 9, initial_epoch=star.initial_epoch).history
    assert history["num_examples"] == [0]


def test_nan_loss_stops_the_run_and_saves_nothing_of_it(make_star, make_model):
    model = make_model()
    model.optimizer.learning_rate = 1e30
    star = make_star(model=model, steps=SteadySteps(8))
    with pytest.raises(FloatingPointError, match="loss of iteration 1 is nan"):
        fit(star, 1)
    assert [line["iteration"] for line in metrics(star)] == [0]
    assert star._run.weights.names() == []


def test_early_stop_by_another_callback_leaves_the_iteration_unfinished(make_star):
    class StopAtOnce(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    star = make_star(steps=SteadySteps(5))
    fit(star, 3, [StopAtOnce()])
    assert star.initial_epoch == 0


# === Other models ===


def sentencepiece_proto(bos, eos):
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=itertools.repeat(
            "Q: What is twice 12? A: The answer is 3.", 9
        ),
        model_writer=content,
        vocab_size=300,
        model_type="BPE",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece=bos,
        eos_piece=eos,
        minloglevel=2,
    )
    return content.getvalue()


def make_llama():
    proto = sentencepiece_proto("<s>", "</s>")
    backbone = hub.LlamaBackbone(
        vocabulary_size=300,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
    )
    preprocessor = hub.LlamaCausalLMPreprocessor(hub_tokenizers.LlamaTokenizer(proto))
    return hub.LlamaCausalLM(backbone, preprocessor)


def make_gemma():
    proto = sentencepiece_proto("<bos>", "<eos>")
    backbone = hub.GemmaBackbone(
        vocabulary_size=300,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=8,
    )
    preprocessor = hub.GemmaCausalLMPreprocessor(hub_tokenizers.GemmaTokenizer(proto))
    return hub.GemmaCausalLM(backbone, preprocessor)


def make_gpt2():
    backbone = hub.GPT2Backbone(
        vocabulary_size=258,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=256,
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet, "qz"]
    tokenizer = hub_tokenizers.GPT2Tokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"]
    )
    return hub.GPT2CausalLM(backbone, hub.GPT2CausalLMPreprocessor(tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_llama, make_gemma, make_gpt2])
def test_other_keras_hub_models_go_through_two_iterations(make_star, make):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=[],
    )
    base = weights(model)
    # What the model itself samples is graded, and trained on where right ...
    star = make_star("own", model, sampler=BatchSampler(model, max_new_tokens=8))
    fit(star, 2)
    assert len(samples(star, 2)) == 24 + 24 + 6
    # ... and a model that knows something is trained on what it knows.
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=model.loss,
        weighted_metrics=[],
    )
    for variable, value in zip(model.trainable_variables, base, strict=True):
        variable.assign(value)
    # From the same base, 20 steps get further down than 2.
    star = make_star("scripted", model, batch_size=3, steps=SteadySteps(2, add=18))
    history = fit(star, 2).history
    assert history["num_rationales"] == [18, 18]
    assert history["loss"][1] < history["loss"][0]
    x, y, sample_weight = next(star._training_batches())
    assert set(x) == {"token_ids", "padding_mask"}
    assert y.shape == (3, 128)


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
