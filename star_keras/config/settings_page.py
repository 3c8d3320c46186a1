"""The reference page of all settings."""

from star_keras.config.star import StarConfig
from star_keras.config.training import OptimizerConfig
from star_keras.utils.settings import Settings, groups_of, settings_of


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


def reference_table(cls: type[Settings]) -> str:
    """A Markdown table of the settings of a class."""
    rows = ["| setting | default | valid | on resume | meaning |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for item in settings_of(cls):
        rows.append(
            f"| `{item.name}` | `{item.default!r}` | {item.describe()} "
            f"| {item.rule.on_resume} | {item.rule.help} |"
        )
    return "\n".join(rows)
