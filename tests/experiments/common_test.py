import signal
import subprocess
import sys

from tests.forks import ROOT

PROGRAM = """
import os, signal, sys, time

class Interrupted:
    \"\"\"Ctrl-C within an import, in a callback that drops exceptions.\"\"\"

    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                sys.exit("dropped")

sys.meta_path.insert(0, Interrupted())
from experiments.common import load_libraries
load_libraries()
"""


def test_ctrl_c_while_libraries_are_loaded_ends_the_program():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGINT
