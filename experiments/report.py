"""Write the report of a run as one HTML page, readable offline.

    python -m experiments.report --run_dir=runs/cpu [--compare=runs/a,runs/b]

A run writes the same page after each iteration. `--compare` adds other runs side by
side. Exits with 1 if a file is damaged; the page shows the undamaged files.
"""

import dataclasses

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.outputs import check_file
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """The run directories and the path of the page."""

    run_dir: str | None = setting(None, "Run directory.", is_path=True, is_needed=True)
    compare: tuple[str, ...] = setting((), "Other runs to show side by side.")
    output: str | None = setting(
        None, "Path of the page. Default: report.html in --run_dir.", is_path=True
    )


define_flags(ReportSettings)


def main(argv):
    (settings,) = from_flags(argv, ReportSettings)
    say_hello(f"report of {', '.join([settings.run_dir, *settings.compare])}")
    # Needs neither Keras nor JAX.
    from star_keras.outer_loop.html_report.write_report import write_report

    if settings.output is not None:
        check_file("output", settings.output, "report", "<title>STaR: ")
    path, faults = write_report(settings.run_dir, settings.compare, settings.output)
    for fault in faults:
        print(f"not shown: {fault}")
    print(f"The report is {path}.")
    return int(bool(faults))


if __name__ == "__main__":
    run_main(main)
