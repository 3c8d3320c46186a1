"""A run that is killed again and again ends as if nothing had been."""

import functools
import random

import pytest

from tests import forks, kills


def start(run_dir, num_processes):
    """The processes of a run in a directory."""
    address = forks.free_address() if num_processes > 1 else ""
    return [
        forks.Running(
            "callbacks_kill", run_dir, address, n, environment={"XLA_FLAGS": ""}
        )
        for n in range(num_processes)
    ]


def what_is_left(run_dir):
    """All that must not depend on how often a run was killed."""
    return *kills.what_is_left(run_dir), (run_dir / "digest").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "count"), [(1, 8), (2, 3)])
def test_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(
    tmp_path, num_processes, count
):
    whole = tmp_path / "whole"
    command = functools.partial(start, num_processes=num_processes)
    seconds = kills.run_to_the_end(command, whole)
    print(f"The uninterrupted run worked for {seconds:.1f} s.")

    kind = command, random.Random(num_processes), seconds / count
    done, ended = 0, 0
    cut = kills.KilledRun(tmp_path / "cut_0", *kind)
    while done < count:
        kill = cut.start_and_kill()
        if kill:
            done += 1
            print(f"kill {done:2d} of {cut.run_dir.name} in iteration {kill.phase}")
        else:
            ended += 1
            assert what_is_left(cut.run_dir) == what_is_left(whole)
            cut = kills.KilledRun(tmp_path / f"cut_{ended}", *kind)
    kills.run_to_the_end(command, cut.run_dir)
    assert what_is_left(cut.run_dir) == what_is_left(whole)
