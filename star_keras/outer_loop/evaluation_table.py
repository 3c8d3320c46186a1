"""Evaluations with several samples of each problem, as rows of a table."""

from collections.abc import Collection, Sequence

from star_keras.utils import files
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import read_json_lines, read_json_object
from star_keras.utils.records import is_share

TITLES = ("evaluation", "samples a problem", "accuracy", "pass@k", "maj@k", "best@k")


def evaluation_rows(paths: Sequence, problems: Collection[str]) -> list[list[str]]:
    """The cells below `TITLES`, a row for each evaluation.

    k is the number of samples of a problem. A metric that was not measured is empty:
    `best@k` needs a verifier.

    Args:
        paths: Directories that `experiments.evaluate` has written, local or `gs://`.
        problems: The ids of the problems that each of them must have evaluated.

    Raises:
        ValueError: if it is not the directory of an evaluation, a file is damaged, or
            the problems are others; names the directory.
    """
    return [_row(path, set(problems)) for path in paths]


def _row(path, problems):
    directory = files.absolute("evaluations", path)
    pair = directory / "metrics.json", directory / "completions.jsonl"
    if not all(file.exists() for file in pair):
        rule = "a directory with metrics.json and completions.jsonl"
        remedy = "experiments.evaluate writes such a directory."
        raise invalid("evaluations", rule, str(path), remedy)
    metrics = read_json_object(pair[0])
    evaluated = {line["problem"] for line in read_json_lines(pair[1], {"problem"})}
    if evaluated != problems:
        rule = f"evaluations of the {len(problems):,} held-out problems of the runs"
        remedy = f"It has {len(evaluated):,} problems, or others. Leave it out."
        raise invalid("evaluations", rule, str(path), remedy)
    k = metrics.get("num_samples")
    names = "accuracy", f"pass@{k}", f"maj@{k}", f"best@{k}"
    shares = [metrics.get(name) for name in names]
    return [str(path), str(k), *(f"{x:.1%}" if is_share(x) else "" for x in shares)]
