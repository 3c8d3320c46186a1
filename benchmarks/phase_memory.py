"""Time and peak memory of a phase of sampling, in one or several processes.

    python -m benchmarks.phase_memory [--sampler=scripted] [--problems=7473]
        [--samples=300000] [--processes=1]

Samples problems with texts of GSM8K's lengths (questions of 235 characters, behind a
few-shot prompt of 1,200), a token a byte, each problem equally often. The sampler
`model` is `ContinuousSampler` with a tiny GPT-J and one new token, on a mesh over all
processes; `scripted` completes every prompt with the same text. Each process prints
its seconds, the increase in its peak memory during the phase, the peak itself, and the
check sum of the sample file.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from benchmarks.libraries import load_libraries
from benchmarks.resume_memory import PROBLEMS, make_text, peak_mib
from tests.forks import free_address


def write_problems(path, count):
    """Write three worked examples and the problems."""
    draw = random.Random(0)
    text = make_text(draw)
    with path.open("w") as file:
        for number in range(3 + count):
            fields = {"question": text(235), "answer": str(number)}
            if number < 3:
                fields["rationale"] = text(150)
            file.write(json.dumps({"id": f"problem-{number}", **fields}) + "\n")


def make_sampler(name):
    """A sampler whose completions take little time."""
    from star_keras.sampling import Completion, ContinuousSampler, Sampler
    from star_keras.testing import tiny_gpt_j

    if name == "model":
        model = tiny_gpt_j(max_sequence_length=2048, num_layers=1, hidden_dim=16)
        return ContinuousSampler(
            model, max_new_tokens=1, batch_size=256, temperature=1.0
        )

    class Scripted(Sampler):
        def sample(self, requests, *, stop=()):
            completion = Completion(text=" 4.", num_tokens=3, finish_reason="stop")
            batch = []
            for i, request in enumerate(requests):
                assert request.prompt
                batch.append((i, completion))
                if len(batch) == 64 or i == len(requests) - 1:
                    yield batch
                    batch = []

    return Scripted()


def sample(directory, number, arguments):
    """Sample in one of the processes, and print what it takes."""
    load_libraries(keep_memory=False)
    import keras

    from star_keras import distribution, tasks
    from star_keras.distribution import processes
    from star_keras.outer_loop.attempts import attempt
    from star_keras.outer_loop.prompts import PromptBuilder
    from star_keras.storage.sample_store import SampleStore

    count = arguments.processes
    if count > 1:
        distribution.initialize(arguments.coordinator, count, number)
        keras.distribution.set_distribution(
            distribution.model_parallel(f"batch:{count}")
        )
    path = directory / "train.jsonl"
    task = tasks.get("jsonl", train_path=path, eval_path=path)
    prompts, problems = PromptBuilder(task), task.problems("train")
    sampler = make_sampler(arguments.sampler)
    attempt(prompts, problems[:300], sampler, kind="rationale")  # compiles
    store = SampleStore(directory / "samples", writes=processes.is_writer())
    before, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
    samples = attempt(
        prompts,
        problems,
        sampler,
        kind="rationale",
        num_samples=-(-arguments.samples // arguments.problems),
        store=store,
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    content = store.path(0, "rationale").read_bytes()
    print(
        f"{arguments.sampler}, process {number} of {count}, {len(samples):,} samples "
        f"of {len(problems):,} problems: {seconds:.0f} s ({cpu:.0f} CPU-s), peak "
        f"{peak_mib() - before:,.0f} MiB more, {peak_mib():,.0f} MiB in all, "
        f"check sum {zlib.crc32(content):08x}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampler", choices=["scripted", "model"], default="scripted")
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sample", nargs=2, help="This process: directory and number.")
    parser.add_argument("--coordinator", help="Set with --sample.")
    arguments = parser.parse_args()
    if arguments.sample:
        directory, number = arguments.sample
        sample(Path(directory), int(number), arguments)
        return
    with tempfile.TemporaryDirectory() as directory:
        write_problems(Path(directory) / "train.jsonl", arguments.problems)
        command = [sys.executable, "-m", "benchmarks.phase_memory", *sys.argv[1:]]
        command += ["--coordinator", free_address(), "--sample", directory]
        numbers = range(arguments.processes)
        started = [subprocess.Popen([*command, str(number)]) for number in numbers]
        codes = [process.wait() for process in started]
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    main()
