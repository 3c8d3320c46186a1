"""Command-line flags, made from the `Settings` classes that describe them.

    SETTINGS = (TaskSettings, SamplingConfig)
    define_flags(*SETTINGS)

    def main(argv):
        task_settings, sampling_config = from_flags(argv, *SETTINGS)

Flags have the names of the fields: `few_shot: bool` is `--few_shot` and
`--nofew_shot`. Bounds and choices are checked when the flags are parsed, before
anything heavy is imported.
"""

import dis
import io
import sys
from collections.abc import Callable, Collection

from absl import app, flags

import star_keras
from star_keras.utils.settings import Settings, groups_of, settings_of

FLAGS = flags.FLAGS
_PACKAGES = "star_keras", "experiments", "__main__"


def define_flags(
    *classes: type[Settings],
    only: Collection[str] | None = None,
    values: flags.FlagValues = FLAGS,
):
    """Define a flag for each setting of classes, groups included.

    Args:
        *classes: The classes.
        only: Names of the settings to define. Defaults to all.
        values: Where the flags go.
    """
    for cls in classes:
        define_flags(*groups_of(cls).values(), only=only, values=values)
        for item in settings_of(cls):
            if only is None or item.name in only:
                _define(item, values)


def _define(item, values):
    rule = item.rule
    arguments = {
        "name": item.name,
        "default": list(item.default) if item.kind is tuple else item.default,
        "help": f"{rule.help} Required." if rule.is_needed else rule.help,
        "flag_values": values,
        "module_name": sys.argv[0],  # `--help` shows the flags of the main module
    }
    if rule.choices is not None:
        flags.DEFINE_enum(enum_values=list(rule.choices), **arguments)
    elif item.kind in (int, float):
        kind = flags.IntegerParser if item.kind is int else flags.FloatParser
        parser = kind(rule.at_least, rule.at_most)
        if item.default is None:
            parser = _NumberOrNone(parser)
        flags.DEFINE(parser, serializer=flags.ArgumentSerializer(), **arguments)
    else:
        define = {
            bool: flags.DEFINE_bool,
            str: flags.DEFINE_string,
            tuple: flags.DEFINE_list,
        }[item.kind]
        define(**arguments)


class _NumberOrNone(flags.ArgumentParser):
    """Reads `none`, which takes back the number of a flagfile."""

    def __init__(self, parser):
        self._parser = parser
        self.syntactic_help = f"{parser.syntactic_help} or none"

    def parse(self, argument):
        return None if argument == "none" else self._parser.parse(argument)

    def flag_type(self):
        return self._parser.flag_type()


def from_flags(
    argv: list[str], *classes: type[Settings], values: flags.FlagValues = FLAGS
) -> list:
    """An object of each class with the values of the parsed flags.

    Args:
        argv: What `app.run` passes: the program, and the arguments that are not flags.
        *classes: The classes. Settings without a flag have their defaults.
        values: Where the flags are.

    Raises:
        app.UsageError: if a value is invalid, two values do not go together,
            or an argument is no flag.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        return [_make(cls, values) for cls in classes]
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def _make(cls, values):
    arguments = {name: _make(part, values) for name, part in groups_of(cls).items()}
    for item in settings_of(cls):
        if item.name in values:
            value = values[item.name].value
            arguments[item.name] = tuple(value) if item.kind is tuple else value
    return cls(**arguments)


def run_main(main: Callable):
    """`app.run`, but an error of the user's input is its message alone.

    The help of an `app.UsageError` of `main` lists all flags, and would hide the
    message. So would the traceback of `--noNAME=VALUE`, which absl does not catch.

    Args:
        main: Callable `argv -> exit code`, of `None` for 0.

    Raises:
        SystemExit: of code 1 with the message of an error of the flags.
    """

    def run(argv):
        try:
            return main(argv)
        except app.UsageError as error:
            raise SystemExit(str(error)) from error

    def parse(arguments):
        try:
            return app.parse_flags_with_usage(arguments)
        except ValueError as error:
            message = f"{error}. Leave out the `=` and the value behind it."
            raise SystemExit(message) from error

    sys.excepthook = print_error
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Completions may have characters that the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    app.run(run, flags_parser=parse)


def print_error(kind, error, trace):
    """Print an uncaught error, as `sys.excepthook`: a fault with its traceback.

    Errors that star-keras raises, and those of files and of missing packages, name
    their remedy. They are printed alone.
    """
    errors = [error]  # and those that were being handled when it was raised
    while not error.__suppress_context__ and error.__context__ is not None:
        error = error.__context__
        errors.append(error)
    if all(map(_is_alone, errors)):
        for error in reversed(errors):
            print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, errors[0], trace)


def _is_alone(error):
    # A note says where the code of a user has failed: that needs a traceback.
    if not str(error) or hasattr(error, "__notes__"):
        return False
    if isinstance(error, ModuleNotFoundError):
        return str(error.name).partition(".")[0] not in _PACKAGES
    return isinstance(error, OSError) or _is_raised_here(error)


def _is_raised_here(error):
    """Whether a `raise` of star-keras raises it, not a call of Python or a library."""
    kinds = ValueError, RuntimeError, FloatingPointError, ImportError
    trace = error.__traceback__
    if not isinstance(error, kinds) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = trace.tb_frame.f_globals["__name__"].partition(".")[0]
    instruction = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return package in _PACKAGES and dis.opname[instruction] == "RAISE_VARARGS"


def say_hello(text: str):
    """Print the first line of a script, before the imports that take seconds."""
    print(f"star-keras {star_keras.__version__}: {text}", flush=True)
