"""Compare methods: accuracy over the tokens that their runs sampled and trained on.

    python -m experiments.compare --run_dirs=runs/star_0,runs/star_1,runs/rft_0 \\
        --output=runs/comparison

Runs whose names differ in their seeds alone are one method. Prints a table of the
methods and the commands of the runs and, with `--evaluations`, a table of `pass@k`,
`maj@k` and `best@k`. Writes them and a plot.
"""

import dataclasses

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.outputs import make_new_directory
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """The run directories, and where the comparison goes."""

    run_dirs: tuple[str, ...] = setting(
        (), "Directories of finished runs, with a comma between two.", is_needed=True
    )
    output: str | None = setting(
        None,
        "Directory of comparison.md and comparison.png, which are replaced, and of "
        "nothing else.",
        is_path=True,
        is_needed=True,
    )
    tokens: int | None = setting(
        None,
        "Sampled and trained tokens at which methods are compared. Default: those of "
        "the run that has spent the fewest.",
        at_least=1,
    )
    evaluations: tuple[str, ...] = setting(
        (),
        "Directories of experiments.evaluate with several samples of each problem, "
        "for a table of pass@k, maj@k and best@k.",
    )


define_flags(CompareSettings)


def main(argv):
    (settings,) = from_flags(argv, CompareSettings)
    say_hello(f"comparison of {len(settings.run_dirs)} runs")
    # Needs neither Keras nor JAX.
    from star_keras.outer_loop.comparison import write_comparison

    names = ("comparison.md", "comparison.png")
    make_new_directory("output", settings.output, names)
    print(
        write_comparison(
            settings.run_dirs,
            settings.output,
            settings.tokens,
            settings.evaluations,
        )
    )
    print(f"The table and the plot are in {settings.output}.")


if __name__ == "__main__":
    run_main(main)
