"""What a run would do: a few problems, sampled, graded and packed."""

import dataclasses
import tempfile

from star_keras.callbacks import StarIterationCallback
from star_keras.models import PackedCausalLM
from star_keras.outer_loop.step_schedules import scheduled_steps
from star_keras.training.packing import make_row, pack

_PROBLEMS = 8


def print_dry_run(model, task, config, iterations, verifier=None):
    """Run the phases before the training on a few problems, and print them.

    Args:
        model: The compiled base model.
        task: The task.
        config: The `StarConfig` of the run.
        iterations: Iterations of the run.
        verifier: The verifier of the run, if it has one.
    """
    num_problems = len(task.questions("train"))
    wanted = config.sampling.n_train_samples or num_problems
    sampling = dataclasses.replace(
        config.sampling, n_train_samples=min(wanted, _PROBLEMS)
    )
    few = dataclasses.replace(config, sampling=sampling)
    with tempfile.TemporaryDirectory() as directory:
        star = StarIterationCallback(model, task, directory, few, verifier=verifier)
        star.run.open({})
        try:
            training_set = star.loop.prepare(1)
            _print_samples(star)
        finally:
            star.run.close()
    _print_row(
        training_set,
        model.preprocessor.tokenizer,
        config.training.sequence_length,
        packed=isinstance(model, PackedCausalLM),
    )
    print("\n=== Plan ===")
    drawn = min(wanted, num_problems)
    print(f"{iterations} iterations, {drawn} training problems each")
    if not config.run.skip_eval:
        held_out = len(task.problems("eval"))
        held_out = min(config.run.n_eval_samples or held_out, held_out)
        print(f"{held_out} held-out problems")
    training = config.training
    if training.schedule != "epochs":
        steps = [scheduled_steps(training, n, 1) for n in range(1, iterations + 1)]
        print(f"training steps by iteration: {steps}, {sum(steps)} together")
    print(f"{training.batch_size} rows of {training.sequence_length} tokens a step")


def _print_samples(star):
    problems = {problem.id: problem for problem in star.loop.problems["train"]}
    for kind in ("rationale", "direct", "rationalization"):
        samples = star.run.samples.load(1, kind) or []
        for number, sample in enumerate(samples):
            hint = kind == "rationalization"
            prompt = star.loop.prompts.build(problems[sample.problem], hint)
            reason = f" ({sample.reason})" if sample.reason else ""
            verdict = f"{sample.verdict}{reason}"
            if number == 0:
                print(f"\n=== Prompt, {kind} ===\n{prompt}")
                print(f"=== Completion, {verdict} ===\n{sample.completion}")
            else:
                print(f"{kind} of {sample.problem}: {verdict}")


def _print_row(training_set, tokenizer, sequence_length, *, packed):
    print("\n=== A row: its first two examples, or one for models without packing ===")
    print("segment, position, token, next token, weight")
    examples = training_set.examples
    if not examples:
        print("(nothing was kept)")
        return
    lengths = [len(example) for example in examples]
    row = pack(lengths, sequence_length)[0][:2] if packed else [0]
    chosen = [examples[i] for i in row]
    length = sum(map(len, chosen))
    x, y, weight = make_row(chosen, length, tokenizer.pad_token_id)
    for i in range(length):
        token, target = map(tokenizer.id_to_token, (int(x["token_ids"][i]), int(y[i])))
        print(
            f"{x['segment_ids'][i]:3d} {x['positions'][i]:5d}  {token:<12} "
            f"{target:<12} {weight[i]:g}"
        )
