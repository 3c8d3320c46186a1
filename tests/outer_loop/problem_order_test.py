"""The order of the problems against AdaSTaR with lists, one problem after the other."""

import random

import pytest

from star_keras.models import GPTJCausalLMPreprocessor
from star_keras.outer_loop.iteration import OuterLoop
from star_keras.outer_loop.problem_order import ordered_problems, updated_keys
from star_keras.outer_loop.progress import Progress
from star_keras.storage.run_directory import RunDirectory
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.testing.tiny_gpt_j import byte_tokenizer
from tests.callbacks.conftest import make_config

TASK = Doubling(train=80)
PROBLEMS = TASK.problems("train")
ROWS = 6


def is_right(name, iteration, hinted):
    """The model gets better, and needs a hint less often."""
    draw = random.Random(f"{name} {iteration} {hinted}").random()
    return draw < (0.2 + 0.1 * iteration) * (2 if hinted else 1)


def script(request):
    iteration, _, _, hinted = request.seed
    n = int(request.name.removeprefix("double-"))
    answer = 2 * n if is_right(request.name, iteration, hinted) else 1
    return f"{' really' * (n % 5)} The answer is {answer}."


class Interrupted(ScriptedSampler):
    """Ends by a `KeyboardInterrupt` after some batches."""

    def __init__(self, batches):
        super().__init__(script)
        self.left = batches

    def sample(self, requests, *, stop=()):
        for batch in super().sample(requests, stop=stop):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


def plain(iterations, size):
    """The problems that each iteration takes, and the keys after the last.

    Args:
        iterations: Number of iterations.
        size: Callable `(id, hinted) -> rows`.
    """
    tie = [p.id for p in ordered_problems(PROBLEMS, 1, make_adaptive(), {})]
    table = dict.fromkeys(tie, (0, 0.0))
    history = []
    for iteration in range(1, iterations + 1):
        waiting, taken, rows = list(tie), [], 0
        alone = hinted_right = 0
        while rows < ROWS and waiting:
            name = waiting[0]
            for other in waiting:
                if table[other] < table[name]:
                    name = other
            waiting.remove(name)
            right = is_right(name, iteration, 0)
            aided = not right and is_right(name, iteration, 1)
            alone, hinted_right = alone + right, hinted_right + aided
            if right or aided:
                rows += size(name, aided)
            taken.append((name, 1 if right else 0.5 if aided else 0))
        failed = len(taken) - alone
        accuracy = alone / len(taken)
        alpha = accuracy + (1 - accuracy) * (hinted_right / failed if failed else 0)
        for name, rate in taken[: round(len(taken) * alpha**2)]:
            table[name] = (iteration, rate)
        history.append([name for name, _ in taken])
    return history, {k: v for k, v in table.items() if v[0]}


def make_adaptive(**settings):
    return make_config(
        order="adaptive",
        sample_until_trained=True,
        start_steps=3,
        add_steps=0,
        batch_size=2,
        skip_eval=True,
        **settings,
    )


def make_loop(path, config, sampler, packed):
    run = RunDirectory(path)
    loop = OuterLoop(
        TASK,
        GPTJCausalLMPreprocessor(byte_tokenizer()),
        run,
        config,
        sampler=sampler,
        eval_sampler=sampler,
        packed=packed,
        progress=Progress(),
    )
    loop._progress.shown = False
    return loop, run


def run_iterations(path, iterations, sampler, packed=False, **settings):
    loop, run = make_loop(path, make_adaptive(**settings), sampler, packed)
    run.open(loop.describe(), {"sample_batch_size"})
    try:
        for iteration in range(run.trained + 1, iterations + 1):
            run.finish(iteration, "begin", {})
            loop.prepare(iteration)
            run.finish(iteration, "train", {})
            run.finish(iteration, "evaluate", {})
    finally:
        run.close()
    return run


def taken(run, iteration):
    samples = run.samples.load(iteration, "rationale")
    return list(dict.fromkeys(s.problem for s in samples))


def packed_rows(name, aided):
    n = int(name.removeprefix("double-"))
    prompt = len(f"Q: What is twice {n}?\nA:")
    return (prompt + len(f"{' really' * (n % 5)} The answer is {2 * n}.")) / 128


@pytest.mark.parametrize(
    ("packed", "size"), [(False, lambda name, aided: 1), (True, packed_rows)]
)
def test_an_adaptive_run_is_that_of_lists(packed, size, tmp_path):
    run = run_iterations(tmp_path, 4, ScriptedSampler(script), packed)
    history, keys = plain(4, size)
    assert [taken(run, n) for n in (1, 2, 3, 4)] == history
    assert {k: tuple(v) for k, v in run.samples.load_pairs(4, "order").items()} == keys
    assert 0 < len(keys) < len(PROBLEMS)
    assert len(history[0]) < len(PROBLEMS)


def test_blocks_and_interruptions_change_nothing(tmp_path):
    whole = run_iterations(tmp_path / "whole", 2, ScriptedSampler(script))
    path = tmp_path / "cut"
    for batches in (0, 1, 1, 1):
        with pytest.raises(KeyboardInterrupt):
            run_iterations(path, 2, Interrupted(batches), sample_batch_size=8)
    cut = run_iterations(path, 2, ScriptedSampler(script), sample_batch_size=3)
    for iteration in (1, 2):
        names = {p.name for p in whole.samples.iteration_directory(iteration).iterdir()}
        assert names >= {"rationale.jsonl", "rationalization.jsonl", "order.json"}
        for name in names:
            paths = [
                run.samples.iteration_directory(iteration) / name
                for run in (whole, cut)
            ]
            assert paths[0].read_bytes() == paths[1].read_bytes(), name


def test_a_kill_between_the_two_phases_changes_nothing(tmp_path):
    whole = run_iterations(tmp_path / "whole", 1, ScriptedSampler(script))
    cut, sampler = tmp_path / "cut", ScriptedSampler(script)
    loop, run = make_loop(cut, make_adaptive(), sampler, False)

    def killed(iteration, phase, metrics):
        if phase == "rationalize":
            raise KeyboardInterrupt
        finish(iteration, phase, metrics)

    run.open(loop.describe())
    finish, run.finish = run.finish, killed
    run.finish(1, "begin", {})
    with pytest.raises(KeyboardInterrupt):
        loop.prepare(1)
    run.close()
    sampler = Interrupted(0)  # nothing is sampled
    cut = run_iterations(cut, 1, sampler)
    assert tokens(whole) == tokens(cut)
    for kind in ("rationale", "rationalization"):
        paths = [run.samples.path(1, kind) for run in (whole, cut)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def tokens(run):
    return [run.metrics(1)[name] for name in ("sampled_tokens", "hinted_tokens")]


def test_tokens_of_dropped_samples_are_counted(tmp_path):
    completions = [[], []]

    def counted(request):
        completions[request.seed[3]].append(script(request))
        return completions[request.seed[3]][-1]

    run = run_iterations(tmp_path, 1, ScriptedSampler(counted), sample_batch_size=64)
    assert tokens(run) == [sum(map(len, texts)) for texts in completions]
    kept = sum(s.num_tokens for s in run.samples.load(1, "rationale"))
    assert 0 < kept < tokens(run)[0]
    names = {p.name for p in run.samples.iteration_directory(1).iterdir()}
    assert not any("journal" in name for name in names)


def test_orders_are_permutations_and_shuffled_ones_change():
    shuffled = [
        [p.id for p in ordered_problems(PROBLEMS, n, make_config(order="shuffled"), {})]
        for n in (1, 2)
    ]
    assert sorted(shuffled[0]) == sorted(shuffled[1]) == sorted(p.id for p in PROBLEMS)
    assert shuffled[0] != shuffled[1]
    assert ordered_problems(PROBLEMS, 1, make_config(), {}) == PROBLEMS
    config = make_config(order="adaptive", n_train_samples=3)
    keys = {p.id: (1, 1.0) for p in PROBLEMS} | {"double-7": (1, 0.5)}
    keys |= {"double-8": (2, 0.0)}
    del keys["double-9"]
    first = ordered_problems(PROBLEMS, 3, config, keys)
    assert [p.id for p in first[:2]] == ["double-9", "double-7"]
    assert len(first) == 3


def test_a_weak_model_gets_no_new_keys():
    assert updated_keys({"a": (1, 0.5)}, 2, PROBLEMS[:3], [], []) == {"a": (1, 0.5)}


def test_the_schedule_must_know_its_steps(tmp_path):
    with pytest.raises(ValueError, match="`schedule`.*sample_until_trained"):
        make_config(sample_until_trained=True, schedule="epochs")
    with pytest.raises(ValueError, match="`steps`.*sample_until_trained"):
        OuterLoop(
            TASK,
            GPTJCausalLMPreprocessor(byte_tokenizer()),
            RunDirectory(tmp_path),
            make_adaptive(),
            sampler=ScriptedSampler(script),
            eval_sampler=ScriptedSampler(script),
            packed=False,
            steps=lambda iteration, steps_per_pass: 1,
            progress=Progress(),
        )
