import os
import subprocess
import sys

import pytest

from tests.conftest import PROGRAMS, ROOT


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
