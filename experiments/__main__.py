"""The command `star-keras`: the scripts of this package, from any directory.

    star-keras run --flagfile=arithmetic_cpu --run_dir=runs/cpu
    star-keras evaluate --preset=runs/cpu/preset --output=runs/eval --nofew_shot

`star-keras COMMAND ...` is `python -m experiments.COMMAND ...`, and `run` is
`experiments.star`. A flagfile that is not there is looked up among those of the
package. Modules of the working directory can be named, as in `--sampler=module:name`.
"""

import ast
import difflib
import importlib.util
import os
import pkgutil
import runpy
import sys
from pathlib import Path

import experiments
import star_keras

_NAMES = {"star": "run"}
_FLAGFILE = "--flagfile"
_FLAGFILES = Path(experiments.__path__[0], "flagfiles")


def commands() -> dict[str, tuple[str, str]]:
    """The module and the summary of each command, by its name.

    Commands are the modules of this package that run as scripts.
    """
    found = {}
    for info in pkgutil.iter_modules(experiments.__path__):
        module = f"experiments.{info.name}"
        source = Path(importlib.util.find_spec(module).origin).read_text("utf-8")
        if not info.name.startswith("_") and "\nif __name__ ==" in source:
            summary = ast.get_docstring(ast.parse(source)).splitlines()[0]
            found[_NAMES.get(info.name, info.name)] = module, summary
    return dict(sorted(found.items()))


def with_flagfiles(arguments: list[str]) -> list[str]:
    """Arguments in which flagfiles of this package have their paths.

    Args:
        arguments: E.g. `["--flagfile=arithmetic_cpu"]`.
    """
    joined = []
    for argument in arguments:
        if joined and joined[-1].lstrip("-") == "flagfile":
            joined[-1] = f"{_FLAGFILE}={argument}"
        else:
            joined.append(argument)
    return [_with_path(argument) for argument in joined]


def _with_path(argument):
    name, _, value = argument.partition("=")
    if name.lstrip("-") != "flagfile" or not value or Path(value).exists():
        return argument
    shipped = _FLAGFILES / Path(value).with_suffix(".flags").name
    return f"{_FLAGFILE}={shipped}" if shipped.is_file() else argument


def _usage(found):
    width = max(map(len, found))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in found.items()]
    return "\n".join(
        [
            "Usage: star-keras COMMAND [FLAGS]\n",
            *lines,
            "\nstar-keras COMMAND --help shows the flags of a command. Flagfiles:",
            f"  {', '.join(sorted(path.stem for path in _FLAGFILES.glob('*.flags')))}",
        ]
    )


def main():
    """Run the command of `sys.argv`.

    Raises:
        SystemExit: with the exit code of the command; of code 2 for an unknown one.
    """
    found = commands()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_usage(found))
        return
    if name == "--version":
        print(star_keras.__version__)
        return
    if name not in found:
        close = difflib.get_close_matches(name, found, 1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        print(f"Unknown command {name!r}.{guess}\n\n{_usage(found)}", file=sys.stderr)
        sys.exit(2)
    sys.path.append(os.getcwd())  # noqa: PTH109 (a text)
    sys.argv[1:] = with_flagfiles(arguments)
    runpy.run_module(found[name][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
