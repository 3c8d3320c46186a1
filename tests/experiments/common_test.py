import signal
import subprocess
import sys

import pytest

from experiments.common import ModelSettings
from star_keras.models import save_hugging_face
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


def test_a_model_without_a_tokenizer_is_refused(make_model, tmp_path):
    model = make_model(num_layers=1)
    model.preprocessor = None
    save_hugging_face(model, tmp_path / "gpt_j")
    settings = ModelSettings(preset=str(tmp_path / "gpt_j"), compilation_cache_dir="")
    with pytest.raises(ValueError, match="Expected a model with a tokenizer") as error:
        settings.load()
    assert "tokenizer.json" in str(error.value)
