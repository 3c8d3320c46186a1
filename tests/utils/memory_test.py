import os
import subprocess
import sys

import pytest

from star_keras.utils import memory
from tests.conftest import PROGRAMS, ROOT


@pytest.mark.parametrize(
    ("limit", "expected"), [("1000\n", 1000), ("max\n", None), (str(2**63), None)]
)
def test_the_limit_of_a_container_is_its_memory(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(memory, "_LIMITS", ())
    machine = memory.total_memory()
    (tmp_path / "memory.max").write_text(limit)
    paths = (tmp_path / "memory.max", tmp_path / "none")
    monkeypatch.setattr(memory, "_LIMITS", paths)
    assert memory.total_memory() == (expected or machine)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults():
    def page_faults(what):
        done = subprocess.run(
            [sys.executable, PROGRAMS / "page_faults.py", what],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert page_faults("keep") < 100 < page_faults("give back")
