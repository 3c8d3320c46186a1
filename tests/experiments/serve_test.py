"""The server as a process, and its end."""

import concurrent.futures
import os
import signal
import time

import pytest
import requests

from tests import forks
from tests.conftest import run_experiment

BODY = {"model": "arithmetic_base", "prompt": "Input:\n3 + 4\nTarget:\n"}


def wait_for_health(url, running):
    for _ in range(600):
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    pytest.fail(running.wait(1).stderr)


def test_sigterm_answers_what_has_been_accepted_and_ends():
    port = forks.free_address().rpartition(":")[2]
    url = f"http://127.0.0.1:{port}"
    running = forks.Running(
        "experiments.serve", f"--port={port}", "--slots=2", "--max_waiting=40"
    )
    wait_for_health(url, running)
    long = BODY | {"temperature": 2, "max_tokens": 400, "n": 20, "seed": 1}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(requests.post, f"{url}/v1/completions", json=long)
        while "waiting_completions 18.0" not in requests.get(f"{url}/metrics").text:
            assert not answer.done()
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGTERM)
        while (late := requests.post(f"{url}/v1/completions", json=BODY)).ok:
            pass
        assert late.status_code == 503
        assert len(answer.result().json()["choices"]) == 20
    done = running.wait(60)
    assert done.returncode == 0, done.stderr
    assert f"arithmetic_base is served at {url}/v1" in done.stdout


def test_a_second_signal_ends_the_process():
    port = forks.free_address().rpartition(":")[2]
    url = f"http://127.0.0.1:{port}"
    running = forks.Running("experiments.serve", f"--port={port}", "--slots=1")
    wait_for_health(url, running)
    long = BODY | {"temperature": 2, "max_tokens": 400, "n": 100, "stream": True}
    with requests.post(f"{url}/v1/completions", json=long, stream=True) as response:
        next(response.iter_lines())
        os.kill(running.pid, signal.SIGTERM)
        while requests.get(f"{url}/health").ok:
            pass
        os.kill(running.pid, signal.SIGTERM)
        done = running.wait(10)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--host=0.0.0.0", "Set a token"),
        ("--max_length=1000", "at most 512"),
        ("--run_dir=/nowhere", "the directory of a run"),
        ("--chat", "without a chat template"),
        ("--preset=nowhere", "nowhere"),
        ("--lora_rank=2", "needs --run_dir"),
    ],
)
def test_wrong_flags_are_errors_at_the_start(flag, words):
    done = run_experiment("serve", "--port=0", flag)
    assert done.returncode != 0
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
