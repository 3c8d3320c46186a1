"""Time and peak memory of a phase of sampling.

    python -m benchmarks.phase_memory [--sampler=scripted] [--samples=300000]

Samples 7,473 problems with texts of GSM8K's lengths (questions of 235 characters,
behind a few-shot prompt of 1,200), a token a byte, each problem equally often. The
sampler `model` is `ContinuousSampler` with a tiny GPT-J and one new token, `scripted`
completes every prompt with the same text. Prints the seconds, the
increase in peak memory during the phase, and the check sum of the sample file.
"""

import argparse
import json
import random
import tempfile
import time
import zlib
from pathlib import Path

from benchmarks.libraries import load_libraries
from benchmarks.resume_memory import PROBLEMS, make_text, peak_mib


def write_problems(path):
    """Write three worked examples and the problems."""
    draw = random.Random(0)
    text = make_text(draw)
    with path.open("w") as file:
        for number in range(3 + PROBLEMS):
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampler", choices=["scripted", "model"], default="scripted")
    parser.add_argument("--samples", type=int, default=300_000)
    arguments = parser.parse_args()
    load_libraries(keep_memory=False)
    from star_keras import tasks
    from star_keras.outer_loop.attempts import attempt
    from star_keras.outer_loop.prompts import PromptBuilder
    from star_keras.outer_loop.sample_store import SampleStore

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "train.jsonl"
        write_problems(path)
        task = tasks.get("jsonl", train_path=path, eval_path=path)
        prompts, problems = PromptBuilder(task), task.problems("train")
        sampler = make_sampler(arguments.sampler)
        attempt(prompts, problems[:300], sampler, kind="rationale")  # compiles
        store = SampleStore(Path(name) / "samples")
        before, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
        samples = attempt(
            prompts,
            problems,
            sampler,
            kind="rationale",
            num_samples=-(-arguments.samples // PROBLEMS),
            store=store,
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        content = store.path(0, "rationale").read_bytes()
        print(
            f"{arguments.sampler}, {len(samples):,} samples: {seconds:.0f} s "
            f"({cpu:.0f} CPU-s), peak {peak_mib() - before:,.0f} MiB, "
            f"check sum {zlib.crc32(content):08x}"
        )


if __name__ == "__main__":
    main()
