"""Check a run directory: its files, their damage, and where a run would continue.

    python -m experiments.check --run_dir=runs/cpu

Changes nothing. With `--mend` it removes or sets aside what a run can write again;
the line of other damage names its remedy. Exits with 1 if something is damaged, or
nothing in the directory is a run.
"""

import dataclasses

from absl import app
from etils import epath

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import load_libraries
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """The run directory, and whether to mend it."""

    run_dir: str | None = setting(
        None, "Directory of the run.", is_path=True, is_needed=True
    )
    mend: bool = setting(False, "Mend what a run can write again.")


define_flags(CheckSettings)


def main(argv):
    (settings,) = from_flags(argv, CheckSettings)
    directory = epath.Path(settings.run_dir)
    if not directory.is_dir():
        raise app.UsageError(f"--run_dir: there is no directory {directory}.")
    # (A damaged run may have lost all but one of them.)
    names = ("config.json", "manifest.jsonl", "samples", "weights")
    if not any((directory / name).exists() for name in names):
        raise app.UsageError(
            f"--run_dir: nothing in {directory} is a run. Expected one of "
            f"{', '.join(names)}. experiments.star writes such a directory."
        )
    say_hello(f"check of {settings.run_dir}")
    load_libraries()
    from star_keras.storage.run_check import check_run, next_step
    from star_keras.storage.run_directory import RunDirectory

    run = RunDirectory(settings.run_dir)
    if settings.mend:
        run.lock.acquire()
    damaged, findings = 0, check_run(run)
    for finding in findings:
        text = f"damaged: {finding.text}" if finding.is_damaged else finding.text
        mends = settings.mend and finding.mend is not None
        if mends:
            text = f"{text}\n  mended: {finding.mend()}"
        elif finding.mend is not None:
            text += " (--mend does it)"
        damaged += finding.is_damaged and not mends
        print(f"{finding.path.relative_to(run.path)}: {text}")
    run.lock.release()
    if any(finding.stops for finding in findings):
        print("A run would not go on until the damage named above is mended.")
        return 1
    try:
        print(f"A run would go on with {next_step(run)}.")
    except ValueError:
        print("A run would not go on.")
    return int(damaged > 0)


if __name__ == "__main__":
    run_main(main)
