"""The reference page of all settings."""

from star_keras.config.star import StarConfig
from star_keras.config.training import OptimizerConfig
from star_keras.utils.settings import groups_of, reference_table


def reference() -> str:
    """The reference page of all settings, in Markdown."""
    parts = [
        "# Configuration",
        "Every setting has the same name as a field of its class and as a flag of "
        "`python -m experiments.star`: `few_shot` is `--few_shot` or `--nofew_shot`. "
        '"On resume" says whether a run that goes on may have another value ("free") '
        'or is refused with one ("fixed"). This page is made by '
        "`python -m star_keras.config`.",
    ]
    for part in (*groups_of(StarConfig).values(), OptimizerConfig):
        summary = part.__doc__.strip().splitlines()[0]
        parts += [f"## {part.__name__}", summary, reference_table(part)]
    return "\n\n".join(parts) + "\n"
