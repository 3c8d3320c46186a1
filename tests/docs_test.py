"""The Python code of README, docs and docstrings runs, and gives what it says."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import shlex

import keras
import numpy as np
import pytest

import star_keras
from experiments.__main__ import with_flagfiles
from star_keras import models, sampling, tasks, testing, training
from tests import forks
from tests.conftest import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:python -m experiments\.|star-keras )(\w+) +([^\n'&|#]*)")
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Lists of the arguments of each script's commands on the pages."""
    blocks = (text for page in PAGES for text in SHELL.findall(page.read_text()))
    text = "\n".join(blocks).replace("\\\n", " ")
    found = {}
    for name, rest in COMMAND.findall(text):
        script = "star" if name == "run" else name
        found.setdefault(script, []).append(with_flagfiles(shlex.split(rest)))
    return found


def is_close(value, expected):
    if isinstance(expected, float):
        return value == pytest.approx(expected)
    if isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(is_close, value, expected))
    return value == expected


def run(code, names):
    """Execute code; compare each expression with the literal in its comment.

    `1 + 1  # 2` is compared, `work()  # takes long` is not.
    """
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        value = eval(source, names)
        after = lines[statement.end_lineno - 1 :][:2]
        comment = after[0][statement.end_col_offset :].strip() or "".join(after[1:])
        try:
            expected = ast.literal_eval(comment.removeprefix("#").strip())
        except (SyntaxError, ValueError):
            continue
        if comment.startswith("#"):
            assert is_close(value, expected), source


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for code in BLOCK.findall(page.read_text()):
        run(code, names)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_the_cells_of_a_notebook_run_and_have_no_outputs(
    notebook, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found = json.loads(notebook.read_text())
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    names = {"__name__": notebook.stem}
    for cell in found["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            run("".join(cell["source"]), names)


@pytest.mark.parametrize(("script", "found"), commands().items(), ids=commands().keys())
def test_the_commands_of_the_docs_have_flags_that_exist(script, found):
    found = [arguments for arguments in found if arguments != ["--help"]]
    done = forks.run("parse_commands", script, *map(json.dumps, found))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= len(found)


def examples():
    """Pairs of a module and the code of one of its docstrings."""
    for info in pkgutil.walk_packages(star_keras.__path__, "star_keras."):
        module = importlib.import_module(info.name)
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for code in BLOCK.findall(ast.get_docstring(node) or ""):
                    name = getattr(node, "name", "module")
                    yield pytest.param(module, code, id=f"{info.name}.{name}")


@pytest.mark.parametrize(("module", "code"), list(examples()))
def test_the_example_of_a_docstring_runs(module, code, tmp_path, monkeypatch):
    """With a small `model` and `task` at hand, and all public names."""
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "np": np, "__name__": "example"}
    for package in (tasks, training, models, sampling, testing, star_keras.config):
        names |= {n: v for n, v in vars(package).items() if not n.startswith("_")}
    names |= vars(module) | {
        "model": testing.tiny_gpt_j(max_sequence_length=512),
        "task": testing.Doubling(),
    }
    run(code, names)
