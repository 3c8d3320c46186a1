"""One iteration of the outer loop by phase, and how it grows.

    python -m benchmarks.iteration

The base model of the arithmetic runs on additions of up to `--digits` digits:
sample a rationale for each problem and a rationalization for each that failed,
grade, pack, one pass of training, evaluate on as many problems as were sampled.
One series each over the number of problems, the few-shot prompt's length and
the completions' length.
"""

import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("problems", ["500", "2000", "8000"], "Problems an iteration.")
flags.DEFINE_list("examples", ["0", "1", "2"], "Worked examples in the prompt.")
flags.DEFINE_list("digits", ["2", "5", "8"], "Digits of the problems, all alike.")
flags.DEFINE_integer("common", 1000, "Problems of the other two series.")

COLUMNS = ("sample", "grade", "pack", "train", "evaluate")


def iteration(model, problems, examples, digits):
    from star_keras import prompts, tasks
    from star_keras.grading import grade
    from star_keras.packing import (
        pack,
        tokenize_examples,
        training_batches,
        training_dataset,
    )
    from star_keras.sampling import SampleRequest, build_prompt, get_sampler

    task = tasks.get(
        "arithmetic",
        digits=digits,
        extrapolation_digits=[max(digits) + 1],
        train_problems=problems,
        eval_problems=problems,
        examples_per_length=max(examples, 1),
    )
    drawn = task.problems("train")[:problems]
    held_out = task.problems("eval")[:problems]
    sampler = get_sampler(model, max_new_tokens=40 + 16 * max(digits), batch_size=128)
    seconds = dict.fromkeys(COLUMNS, 0.0)

    def timed(column, function):
        start = time.perf_counter()
        result = function()
        seconds[column] += time.perf_counter() - start
        return result

    def sample(column, problems, hint):
        prefix = prompts.few_shot_prompt(task, hint=hint) if examples else ""
        requests = [
            SampleRequest(
                prompt=build_prompt(task, p, prefix=prefix, hint=hint),
                name=p.id,
                prefix=prefix,
            )
            for p in problems
        ]

        def run():
            done = {}
            for batch in sampler.sample(requests, stop=task.stop):
                done.update(batch)
            return [done[i] for i in range(len(problems))]

        return timed(column, run) if problems else []

    completions = sample("sample", drawn, False)
    verdicts = timed(
        "grade",
        lambda: [
            grade(task, p, c.text)[1] for p, c in zip(drawn, completions, strict=True)
        ],
    )
    failed = [p for p, v in zip(drawn, verdicts, strict=True) if v != "correct"]
    hinted = sample("sample", failed, True)
    tokens = sum(c.num_tokens for c in completions + hinted)
    texts = [
        (task.format_question(p), c.text.rstrip(), 1.0)
        for p, c in [
            *zip(drawn, completions, strict=True),
            *zip(failed, hinted, strict=True),
        ]
    ][:problems]

    def make_rows():
        found = tokenize_examples(model.preprocessor, texts)
        return found, pack([len(e) for e in found], 256)

    found, rows = timed("pack", make_rows)
    steps = -(-len(rows) // 16)
    dataset = training_dataset(
        lambda: training_batches(
            found, batch_size=16, row_length=256, pad_id=0, seed=(0,)
        ),
        batch_size=16,
        row_length=256,
    )
    weights = model.get_weights()
    timed(
        "train",
        lambda: model.fit(dataset, steps_per_epoch=steps, verbose=0, shuffle=False),
    )
    model.set_weights(weights)
    sample("evaluate", held_out, False)
    return seconds, tokens, len(prompts.few_shot_prompt(task)) if examples else 0


def main(argv):
    from star_keras.memory import keep_freed_memory

    keep_freed_memory()
    import keras

    from star_keras.callbacks import feed_token_ids
    from star_keras.models import GPTJCausalLM

    model = GPTJCausalLM.from_preset("experiments/presets/arithmetic_base")
    feed_token_ids(model)
    model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=1.0))
    settings = [
        *((int(n), 0, [5]) for n in FLAGS.problems),
        *((FLAGS.common, int(n), [3]) for n in FLAGS.examples),
        *((FLAGS.common, 0, [int(n)]) for n in FLAGS.digits),
    ]
    print(
        f"{'problems':>8} {'examples':>8} {'digits':>6} {'sampled':>8} "
        + " ".join(f"{c + ' s':>10}" for c in (*COLUMNS, "all"))
    )
    for problems, examples, digits in settings:
        # The first time compiles.
        iteration(model, min(problems, 300), examples, digits)
        seconds, tokens, _ = iteration(model, problems, examples, digits)
        print(
            f"{problems:8} {examples:8} {digits[0]:6} {tokens:8} "
            + " ".join(f"{s:10.2f}" for s in (*seconds.values(), sum(seconds.values())))
        )


if __name__ == "__main__":
    app.run(main)
