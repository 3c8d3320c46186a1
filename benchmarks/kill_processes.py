"""One of the processes of a run is killed at a random moment, again and again.

    python -m benchmarks.kill_processes [--processes=4] [--kills=20] [--timeout=30]
        [--pause=10]

The run is `experiments.star`: two iterations of one-digit sums on a mesh over all
processes, with a checkpoint every 2 steps. The model is a GPT-J of one layer with
random weights, which guesses digits. One process gets SIGKILL, at most `--pause`
seconds after the first new bytes of the run; a row of the table is a kill. The others
must end within `--timeout` seconds, the `--process_timeout` of the run. Then the same
command is given to all processes again, until the run comes to its end. It must end
like a run that was not killed: with the same files, samples, metrics (without times)
and bytes of the final preset. The next kill is of a new run. Exits with code 1 if a row
fails.
"""

import argparse
import functools
import random
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.libraries import load_libraries
from tests import forks, kills

FLAGS = (
    *("--digits=1", "--train_problems=16", "--eval_problems=8", "--nofew_shot"),
    *("--iterations=2", "--schedule=steady", "--start_steps=4", "--add_steps=2"),
    *("--samples_per_problem=16", "--temperature=1", "--sample_batch_size=64"),
    *("--max_new_tokens=8", "--batch_size=4", "--sequence_length=64"),
    *("--learning_rate=1e-3", "--warmup_steps=0", "--checkpoint_steps=2"),
    "--verbose=0",
)


def save_model(path):
    """Save a random model that samples a digit or the end."""
    load_libraries()
    from star_keras.testing import tiny_gpt_j

    model = tiny_gpt_j(num_layers=1, hidden_dim=16, intermediate_dim=32)
    tokenizer = model.preprocessor.tokenizer
    bias = np.full(258, -10.0)
    bias[[tokenizer.token_to_id(digit) for digit in "0123456789"]] = 0
    bias[tokenizer.end_token_id] = 2.3  # one token in two
    (variable,) = (v for v in model.variables if v.path.endswith("lm_head/bias"))
    variable.assign(bias)
    model.save_to_preset(str(path))


def what_is_left(run_dir):
    """All that must not depend on a kill."""
    preset = {p.name: p.read_bytes() for p in (run_dir / "preset").glob("*.*")}
    del preset["metadata.json"]  # has the date
    files = (p.relative_to(run_dir) for p in run_dir.rglob("*") if p.is_file())
    # Names of Orbax's files are random.
    names = {str(f) for f in files if f.parts[0] not in ("weights", "training")}
    return *kills.what_is_left(run_dir), preset, names


def start(run_dir, preset, count, timeout):
    """The processes of a run."""
    address = forks.free_address()
    return [
        forks.Running(
            "experiments.star",
            *(*FLAGS, f"--mesh=batch:{count}", f"--process_timeout={timeout}"),
            *(f"--num_processes={count}", f"--process_id={number}"),
            *(f"--coordinator={address}", f"--preset={preset}"),
            f"--run_dir={run_dir}",
            # Compiling takes longer than running a model this small.
            environment={"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        )
        for number in range(count)
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--timeout", type=int, default=30)
    parser.add_argument("--pause", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count, timeout = arguments.processes, arguments.timeout
    with tempfile.TemporaryDirectory() as name:
        directory, draw = Path(name), random.Random(arguments.seed)
        preset, whole = directory / "preset", directory / "whole"
        save_model(preset)
        command = functools.partial(start, preset=preset, count=count, timeout=timeout)
        kills.run_to_the_end(command, whole)
        print(
            f"{count} processes, timeout {timeout} s, pause {arguments.pause} s, seed "
            f"{arguments.seed}\n\n| kill | run | process killed | seconds after "
            "its first new file | iteration, phase | seconds to the end of the last "
            "process | exit codes |\n" + "| --- " * 7 + "|",
            flush=True,
        )

        def new_run(number):
            return kills.KilledRun(
                directory / f"run_{number}", command, draw, arguments.pause
            )

        def end():
            is_equal = what_is_left(run.run_dir) == what_is_left(whole)
            words = "ends equal" if is_equal else "ENDS UNEQUAL"
            print(f"| | {number} | | | {words} | | |", flush=True)
            return not is_equal

        rows, failed, number = 0, 0, 1
        run = new_run(number)
        while rows < arguments.kills:
            process = draw.randrange(count)
            kill = run.start_and_kill(process)
            if kill is None:
                failed += end()
                number += 1
                run = new_run(number)
                continue
            rows += 1
            failed += kill.seconds > timeout or 0 in kill.codes
            codes = ", ".join(map(str, kill.codes))
            print(
                f"| {rows} | {number} | {process} | {kill.moment:.1f} | {kill.phase} "
                f"| {kill.seconds:.1f} | {codes} |",
                flush=True,
            )
            if kill.codes[process] != -signal.SIGKILL:
                sys.exit("\n".join(kill.errors))
        kills.run_to_the_end(command, run.run_dir)
        failed += end()
    if failed:
        sys.exit(f"{failed} rows failed.")


if __name__ == "__main__":
    main()
