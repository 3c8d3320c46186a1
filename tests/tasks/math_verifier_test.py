"""math-verify has a process of its own, which starts late and may be killed."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LIFE = """
import os, signal, sys
from pathlib import Path

starts = []
sys.addaudithook(lambda event, _: event == "subprocess.Popen" and starts.append(1))
from star_keras.tasks import GSM8K

read = GSM8K().extract_answer

def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

assert read("#### 1,000") == "1000" and not starts
assert read("#### 7/3") == "7/3" and read("#### 14/6") == "7/3" and len(starts) == 1
assert read("#### 9^{9^{9^{9}}}") is None and len(starts) == 1
assert not children()  # the system has killed it
assert read("#### 5/3") == "5/3" and len(starts) == 2
(child,) = children()
os.kill(int(child), signal.SIGKILL)
os.waitid(os.P_PID, int(child), os.WEXITED | os.WNOWAIT)
assert read("#### 4/3") == "4/3" and len(starts) == 3
assert not {"math_verify", "sympy", "antlr4"} & sys.modules.keys()
print("lived")
"""


def run(program, path=""):
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_it_starts_with_the_first_fraction_and_again_after_each_kill():
    done = run(LIFE)
    assert done.stdout == "lived\n", done.stderr
    assert done.stderr == ""


NOISY = """
import os, sys

def print_like_antlr4(event, arguments):
    if event == "import" and arguments[0].split(".")[0] in ("math_verify", "antlr4"):
        os.write(1, b"ANTLR runtime and generated code versions disagree\\n")

sys.addaudithook(print_like_antlr4)
"""


def test_what_its_libraries_print_is_no_answer(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NOISY)
    program = "from star_keras import tasks; print(tasks.GSM8K().extract_answer(%r))"
    done = run(program % "#### 14/6", tmp_path)
    assert done.stdout == "7/3\n", done.stderr


BROKEN = {
    "a closed pipe": "os.close(0)",
    "half of a line": "[os.write(i, b'[\"7\", ') for i in range(1, 20) if is_pipe(i)]",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_process_that_breaks_down_has_no_answer(tmp_path, kind):
    (tmp_path / "math_verify.py").write_text(
        f"""
import atexit, os, stat, time
LatexExtractionConfig = object
atexit.register(time.sleep, 60)

def is_pipe(fd):
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False

def parse(*_, **__):
    {BROKEN[kind]}
"""
    )
    program = (
        "from star_keras import tasks; read = tasks.GSM8K().extract_answer; "
        "print(read('#### 7/3'), read('#### 5/3'), read('#### 4/3'))"
    )
    done = run(program, tmp_path)
    assert done.stdout == "None None None\n", done.stderr


def test_without_math_verify_a_fraction_is_a_clear_error(tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no such package')\n")
    program = "from star_keras import tasks; tasks.GSM8K().extract_answer('#### 7/3')"
    last = run(program, tmp_path).stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: math-verify, which reads fractions")
    assert "pip install math-verify" in last
