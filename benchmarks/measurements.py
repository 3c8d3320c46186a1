"""Measurements of sampling and training, the same for all libraries."""

import time

from benchmarks.machine import memory_mib, reset_peak


def measure_sampling(sample, count, warm_up, compiles_at_once=False):
    """Measure sampling after a run to warm up.

    Args:
        sample: Function from a number of questions to batches, see `benchmarks.peers`.
        count: Questions.
        warm_up: Questions of the first run.
        compiles_at_once: Whether all is compiled before the first batch is done, so
            that further batches of the first run tell nothing.

    Returns:
        A dict of the completions, pairs of a question's index and token ids, and the
        measurements.
    """
    before = memory_mib("VmRSS")
    _, warm_up_seconds, _ = _sample(sample, warm_up)
    reset_peak()
    cpu_start = time.process_time()
    completions, seconds, first = _sample(sample, count)
    return {
        "completions": completions,
        "seconds": seconds,
        "first": first,
        "cpu": time.process_time() - cpu_start,
        "compile": warm_up_seconds - (first if compiles_at_once else seconds),
        "memory": memory_mib("VmHWM") - before,
    }


def _sample(sample, count):
    """Completions, seconds of all, and seconds of the first batch."""
    completions, first = [], None
    start = time.perf_counter()
    for batch in sample(count):
        if first is None:
            first = time.perf_counter() - start
        completions += batch
    return completions, time.perf_counter() - start, first


def measure_training(step, repeats):
    """Call `step` once to warm up, then `repeats` times; the best time counts."""
    before = memory_mib("VmRSS")
    seconds = []
    for _ in range(1 + repeats):
        reset_peak()
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    return {
        "seconds": best,
        "compile": seconds[0] - best,
        "memory": memory_mib("VmHWM") - before,
    }
