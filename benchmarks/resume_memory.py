"""Time and peak memory of resuming a run with a million samples in an iteration.

    python -m benchmarks.resume_memory [--samples=1000000]

Writes a run directory of 7,473 problems with texts of GSM8K's lengths (questions of
235 characters, completions of 290), half of the samples correct, a token a byte. A
first process selects, tokenizes and packs them. A second one resumes, as
after a kill in the training: it reads the samples, selects, tokenizes and packs again.
Prints the seconds of the second process, and its peak memory above that after its
imports.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.libraries import load_libraries

PROBLEMS = 7_473  # of GSM8K's training set


def make_text(draw):
    """A function from a length to a text of words of about so many characters."""
    source = " ".join(
        "".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 7)))
        for _ in range(200_000)
    )

    def text(length):
        start = draw.randrange(len(source) - length)
        return source[start : start + length].strip()

    return text


def write(directory, count):
    """Write the problems, and the samples of a finished phase."""
    draw = random.Random(0)
    text = make_text(draw)
    per_problem = -(-count // PROBLEMS)
    with (
        (directory / "train.jsonl").open("w") as train,
        (directory / "rationale.jsonl").open("w") as samples,
    ):
        for number in range(PROBLEMS):
            name, question = f"problem-{number}", text(235)
            problem = {"id": name, "question": question, "answer": str(number)}
            train.write(json.dumps(problem) + "\n")
            for i in range(per_problem):
                is_correct = draw.random() < 0.5
                answer = str(number if is_correct else number + 1)
                rationale = text(draw.randint(140, 440) - 20)
                record = {
                    "iteration": 1,
                    "problem": name,
                    "problem_class": "",
                    "sample": i,
                    "kind": "rationale",
                    "completion": f" {rationale} The answer is {answer}.",
                    "num_tokens": 110,
                    "finish_reason": "stop",
                    "answer": answer,
                    "verdict": "correct" if is_correct else "incorrect",
                    "reason": "",
                }
                samples.write(json.dumps(record) + "\n")
    lines = (directory / "train.jsonl").read_text().splitlines(keepends=True)[:9]
    held_out = [json.loads(line) for line in lines]
    for problem in held_out:
        problem["id"] += "-held-out"
    lines = [json.dumps(problem) + "\n" for problem in held_out]
    (directory / "eval.jsonl").write_text("".join(lines))
    return per_problem


def prepare(directory, per_problem):
    """Select, tokenize and pack, and print what it takes."""
    load_libraries(keep_memory=False)
    from star_keras import config, tasks
    from star_keras.callbacks import StarIterationCallback
    from star_keras.testing import ScriptedSampler, tiny_gpt_j

    def unexpected(request):
        raise RuntimeError(f"{request.name} is sampled again.")

    settings = config.StarConfig(
        sampling=config.SamplingConfig(
            few_shot=False,
            rationalize=False,
            samples_per_problem=per_problem,
        ),
        selection=config.SelectionConfig(few_shot_train=False),
        training=config.TrainingConfig(sequence_length=1024),
        run=config.RunConfig(skip_eval=True),
    )
    task = tasks.get(
        "jsonl",
        train_path=directory / "train.jsonl",
        eval_path=directory / "eval.jsonl",
    )
    star = StarIterationCallback(
        tiny_gpt_j(max_sequence_length=2048),
        task,
        directory / "run",
        settings,
        sampler=ScriptedSampler(unexpected),
    )
    before = peak_mib()
    start, cpu = time.perf_counter(), time.process_time()
    star.run.open({})
    star.run.finish(1, "begin", {})
    written = directory / "rationale.jsonl"
    if written.exists():
        iteration = directory / "run" / "samples" / "iteration_0001"
        iteration.mkdir(parents=True)
        written.rename(iteration / written.name)
    training_set = star.loop.prepare(1)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    star.run.close()
    print(
        f"{per_problem * PROBLEMS:,} samples, {len(training_set.examples):,} examples: "
        f"{seconds:.0f} s ({cpu:.0f} CPU-s), peak {peak_mib() - before:,.0f} MiB"
    )


def peak_mib():
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--prepare", nargs=2)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(Path(arguments.prepare[0]), int(arguments.prepare[1]))
    else:
        command = [sys.executable, "-m", "benchmarks.resume_memory", "--prepare"]
        with tempfile.TemporaryDirectory() as name:
            count = write(Path(name), arguments.samples)
            for phase in ("first", "resumed"):
                print(phase, end=": ", flush=True)
                subprocess.run([*command, name, str(count)], check=True, env=os.environ)
