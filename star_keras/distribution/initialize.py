"""Start-up of several processes, and their common end."""

import atexit
import os
import sys
import threading
import traceback

import jax
from jax._src.distributed import global_state
from keras.src.backend import distribution_lib

# Where a process that fails says so to the others.
_FAILURE = "star_keras/failure"
_VARIABLES = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")


def initialize(
    coordinator=None,
    num_processes=None,
    process_id=None,
    *,
    timeout_seconds=60,
    start_seconds=300,
):
    """Join the other processes of this run; `keras.distribution.initialize`.

    Call it before anything else uses JAX. On a Cloud TPU pod, and under Slurm
    or MPI, no argument is needed. Elsewhere give all three, or set Keras'
    `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `KERAS_DISTRIBUTION_NUM_PROCESSES` and
    `KERAS_DISTRIBUTION_PROCESS_ID`.

    Unlike with Keras' own function no process waits for a dead one: after an
    uncaught exception the others end at once and print it; after a kill, or
    when a host is lost, they end after `timeout_seconds`. (SIGTERM kills none:
    JAX keeps it as a notice of preemption, see
    `PreemptionNotice`.)

    Args:
        coordinator: optional string `"host:port"` of process 0.
        num_processes: optional int.
        process_id: optional int, from 0.
        timeout_seconds: int. How long a process may be silent before the
            others give it up. Defaults to `60`.
        start_seconds: int. How long to wait for the others to start. Defaults
            to `300`.

    Raises:
        ValueError: if only some of the three are given, or `process_id` is not
            one of the processes.
    """
    given = {"coordinator": coordinator} | {
        "num_processes": num_processes,
        "process_id": process_id,
    }
    for (name, value), variable in zip(given.items(), _VARIABLES, strict=True):
        found = os.environ.get(f"KERAS_DISTRIBUTION_{variable}")
        if value is None and found is not None:
            given[name] = found if name == "coordinator" else int(found)
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise ValueError(
            "Expected all of `coordinator`, `num_processes` and `process_id`, or none "
            "of them where they are found by themselves. Missing: "
            f"{', '.join(missing)}. Received: {given}."
        )
    if not missing:
        if not 0 <= given["process_id"] < given["num_processes"]:
            raise ValueError(
                "Invalid value for argument `process_id`. Expected 0 to "
                f"{given['num_processes'] - 1}, with num_processes="
                f"{given['num_processes']}. Received: "
                f"process_id={given['process_id']}."
            )
        given["coordinator"] = given["coordinator"].split(",")[0]
    # Keras' own function has no way to set the timeouts.
    jax.distributed.initialize(
        given["coordinator"],
        given["num_processes"],
        given["process_id"],
        initialization_timeout=start_seconds,
        heartbeat_timeout_seconds=timeout_seconds,
        shutdown_timeout_seconds=timeout_seconds,
    )
    _end_together()
    distribution_lib.initialize_rng()


def _end_together():
    """An uncaught exception here ends every process, and one there this."""
    client, process = global_state.client, jax.process_index()
    over = threading.Event()

    def fail(kind, error, trace):
        traceback.print_exception(kind, error, trace)
        if over.is_set():
            return
        over.set()
        last = traceback.format_exception_only(kind, error)[-1].strip()
        try:
            client.key_value_set(_FAILURE, f"Process {process} failed: {last}")
        except jax.errors.JaxRuntimeError as refused:
            # A collective that failed because another process had.
            if "ALREADY_EXISTS" in str(refused):
                first = client.blocking_key_value_get(_FAILURE, 1000)
                print(f"Before that: {first}", file=sys.stderr)
        _exit()

    def watch():
        while not over.is_set():
            try:
                message = client.blocking_key_value_get(_FAILURE, 1000)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" in str(error) or over.is_set():
                    continue
                message = f"Process 0, the coordinator, is gone: {error}"
            if not over.is_set():
                over.set()
                print(f"{message}\nProcess {process} ends with it.", file=sys.stderr)
                _exit()

    def stop():
        over.set()
        watcher.join()

    sys.excepthook = fail
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    # Runs before JAX leaves the others.
    atexit.register(stop)


def _exit():
    # Not `sys.exit`: at exit JAX waits for all processes.
    sys.stdout.flush()
    sys.stderr.flush()
    # Process 0 has what the others wait for to learn of it.
    if jax.process_index() == 0:
        threading.Event().wait(3)
    os._exit(1)
