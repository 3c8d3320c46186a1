"""One of two processes, and how it ends when process 1 dies in several ways.

Arguments: a directory; pairs `<way of dying>=<address of the coordinator>`; an unused
address; and the number of the process. Each pair is a fork of its own, since imports
take longer than the rest. It leaves `<way>-<number>.json`, `.out` and `.err`.
"""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from jax.experimental import multihost_utils

from star_keras import distribution
from star_keras.distribution import processes
from star_keras.outer_loop.run_directory import RunDirectory


def raise_an_error(other):
    raise ValueError("no file")


def be_killed(other):
    os.kill(os.getpid(), signal.SIGKILL)


def fall_silent(other):
    # A stopped process sends no heartbeats. The shell kills it after the other.
    wait = f"for i in $(seq 80); do kill -0 {other} || break; sleep 0.2; done"
    subprocess.Popen(["sh", "-c", f"{wait} 2>/dev/null; kill -9 {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


DEATHS = {"exception": raise_an_error, "kill": be_killed, "silence": fall_silent}


def run(way, address):
    distribution.initialize(address, 2, int(number), timeout_seconds=5)
    if way == "not_shared":
        RunDirectory(directory / f"run-{number}").open({})
        return
    pid = multihost_utils.broadcast_one_to_all(np.array(os.getpid()))
    print("start", time.time(), flush=True)
    if number == "1":
        time.sleep(1)
        DEATHS[way](int(pid))
    processes.sync("end")


directory, *cases, _, number = sys.argv[1:]
directory = pathlib.Path(directory)
for way, address in (case.split("=") for case in cases):
    path = directory / f"{way}-{number}"
    child = os.fork()
    if child == 0:
        for suffix, descriptor in ((".out", 1), (".err", 2)):
            os.dup2(
                os.open(path.with_suffix(suffix), os.O_CREAT | os.O_WRONLY), descriptor
            )
        run(way, address)
        sys.exit()
    status = os.waitpid(child, 0)[1]
    found = {"code": os.waitstatus_to_exitcode(status), "ended": time.time()}
    path.with_suffix(".json").write_text(json.dumps(found))
