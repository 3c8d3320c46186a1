"""Common start and common end of the processes of a run."""

import atexit
import os
import sys
import threading
import traceback

import jax
from jax._src.distributed import global_state
from keras.src.backend import distribution_lib

from star_keras.utils.errors import invalid

# Key of the message with which a failing process ends the others.
_FAILURE = "star_keras/failure"
# JAX looks for silent processes now and then. With `timeout_seconds` as its own timeout
# a run of benchmarks.kill_processes ended 0.7 seconds late.
_NOTICING = 2
_VARIABLES = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")


def initialize(
    coordinator=None,
    num_processes=None,
    process_id=None,
    *,
    timeout_seconds=60,
    start_seconds=300,
):
    """Join the other processes of this run.

    Call it before anything else uses JAX. A Cloud TPU pod, Slurm and MPI need no
    arguments. Elsewhere pass the first three arguments, or set the environment
    variables of Keras: `KERAS_DISTRIBUTION_JOB_ADDRESSES`,
    `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID`.

    This function replaces `keras.distribution.initialize`, whose processes wait
    forever for a dead one. Here an uncaught exception of one process ends all
    others at once, and they print it. A killed process or a lost host ends the
    others within `timeout_seconds`. SIGTERM kills no process: JAX turns it into a
    notice of preemption, see `PreemptionNotice`.

    A process that waits longer than `start_seconds` for the others prints it and
    ends with code 1.

    Args:
        coordinator: optional string. Address `"host:port"` of process 0.
        num_processes: optional int. Number of processes.
        process_id: optional int. Number of this process, from 0.
        timeout_seconds: int. Longest time in seconds from the loss of a process to the
            end of all others. At least 3. Defaults to `60`.
        start_seconds: int. Longest wait for the other processes at the start.
            Defaults to `300`.

    Raises:
        ValueError: if `timeout_seconds` is below 3, if only some of the first three
            arguments are given, or if `process_id` is not between 0 and
            `num_processes - 1`.
    """
    if timeout_seconds < 3:
        raise invalid("timeout_seconds", "at least 3", timeout_seconds)
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
            "of them on a TPU pod, Slurm or MPI. Missing: "
            f"{', '.join(missing)}. Received: {given}."
        )
    if not missing:
        if not 0 <= given["process_id"] < given["num_processes"]:
            raise invalid(
                "process_id",
                f"0 to {given['num_processes'] - 1}, with num_processes="
                f"{given['num_processes']}",
                given["process_id"],
            )
        given["coordinator"] = given["coordinator"].split(",")[0]
    waiting = threading.Timer(start_seconds, _give_up_the_start, (start_seconds,))
    waiting.start()
    try:
        # Keras' own function has no arguments for the timeouts.
        jax.distributed.initialize(
            given["coordinator"],
            given["num_processes"],
            given["process_id"],
            # At its end JAX aborts the process with a stack trace.
            initialization_timeout=start_seconds + 60,
            heartbeat_timeout_seconds=timeout_seconds - _NOTICING,
            shutdown_timeout_seconds=timeout_seconds,
        )
    finally:
        waiting.cancel()
    _end_together()
    distribution_lib.initialize_rng()


def _give_up_the_start(seconds):
    """End this process, which waits for others that do not come."""
    state = global_state
    if state.coordinator_address is None:  # on a TPU slice, while it is looked up
        text = (
            f"A process waited {seconds} seconds for the address of process 0. Check "
            "that its host runs and can be reached, or pass `coordinator`, "
            "`num_processes` and `process_id`."
        )
    else:
        text = (
            f"Process {state.process_id} of {state.num_processes} waited {seconds} "
            f"seconds for the others at {state.coordinator_address}, the address of "
            "process 0. Those that do not say this too have not started, have ended, "
            "or look for another address. Start all of them again."
        )
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


def _end_together():
    """Let an uncaught exception of any process end all processes."""
    client, process = global_state.client, jax.process_index()
    over = threading.Event()
    print_error = sys.excepthook

    def fail(kind, error, trace):
        print_error(kind, error, trace)
        if over.is_set():
            return
        over.set()
        last = "".join(traceback.format_exception_only(kind, error)).strip()
        try:
            client.key_value_set(_FAILURE, f"Process {process} failed: {last}")
        except jax.errors.JaxRuntimeError as refused:
            # Another process failed first, and made this one's collective fail.
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
    # Runs before JAX disconnects this process.
    atexit.register(stop)


def _exit():
    # `sys.exit` would hang: JAX waits for all processes at exit.
    sys.stdout.flush()
    sys.stderr.flush()
    # The other processes read the message from process 0.
    if jax.process_index() == 0:
        threading.Event().wait(3)
    os._exit(1)
