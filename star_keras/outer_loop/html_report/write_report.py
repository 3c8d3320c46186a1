"""Writing the report: one HTML file that opens from a disk, without a network."""

import base64
import functools
import hashlib
import importlib.resources
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence

import jinja2
from etils import epath
from markupsafe import Markup

import star_keras
from star_keras.outer_loop.html_report import charts, overview
from star_keras.outer_loop.html_report.facts import facts
from star_keras.outer_loop.html_report.problem_data import ProblemData
from star_keras.outer_loop.problem_texts import write_problem_texts
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.storage.run_files import RunFiles, text
from star_keras.tasks.task import Problem
from star_keras.utils import files
from star_keras.utils.errors import invalid

REPORT_NAME = "report.html"
# Bytes of the samples of all runs, about 400,000 samples of 300 characters.
_MOST_BYTES = 128 * 2**20
_PAGE = importlib.resources.files(__package__) / "page"
_SCRIPTS = (
    "elements.js",
    "charts.js",
    "data.js",
    "texts.js",
    "problem.js",
    "filters.js",
)


def write_report(
    run_dir, compare: Sequence = (), path=None, most_bytes: int = _MOST_BYTES
) -> tuple[epath.Path, list[str]]:
    """Write the report of a run, finished or under way.

    Memory holds the numbers of all samples, the decisions of one iteration and one
    chunk of texts.

    Args:
        run_dir: The run directory, local or `gs://`.
        compare: Other run directories, shown side by side.
        path: Path of the page. Defaults to `report.html` in `run_dir`.
        most_bytes: Largest size of the sample files for a page with all problems. For
            larger files the page shows a share of the problems, each with all of its
            samples; metrics and counts still cover all problems.

    Returns:
        The path of the report, and a sentence for each damaged file. The report shows
        the sentence and the undamaged part of the file.

    Raises:
        ValueError: if a directory is not that of a run, or is given twice.
        OSError: if a file cannot be written, or a directory not be read; names it.
    """
    runs = [RunFiles(directory) for directory in (run_dir, *compare)]
    paths = [str(run.path) for run in runs]
    for number, run_path in enumerate(paths):
        if run_path in paths[:number]:
            raise invalid("compare", "other directories, each once", run_path)
    if len({run.name for run in runs}) < len(runs):
        for run in runs:
            run.name = str(run.path)
    size = sum(run.size() for run in runs)
    share = min(1.0, most_bytes / max(size, 1))
    path = runs[0].path / REPORT_NAME if path is None else files.absolute("path", path)
    with tempfile.TemporaryFile() as scratch:
        data = ProblemData(scratch, share)
        for number, run in enumerate(runs):
            data.add_run(number, run)
        faults = [fault for run in runs for fault in run.faults]
        files.write_pieces(path, _pieces(runs, data, faults, share))
    return path, faults


def update_report(
    run_dir: epath.Path,
    problems: Mapping[str, Sequence[Problem]],
    prompts: PromptBuilder,
    hinted: bool,
):
    """Write the report of a run after an iteration, and the texts of its problems.

    A failure does not end the run. It becomes a warning with the file and the remedy.

    Args:
        run_dir: The run directory.
        problems: The problems of each split.
        prompts: Makes the prompts of samples.
        hinted: Whether the run samples with hints.
    """
    try:
        write_problem_texts(run_dir, problems, prompts, hinted)
        _, faults = write_report(run_dir)
    except Exception as error:  # even a fault of the report must not end a run
        faults = [f"{run_dir / REPORT_NAME} was not written ({error!r})."]
    if faults:
        warnings.warn(
            f"{' '.join(faults)} The run goes on. `python -m experiments.report "
            f"--run_dir={run_dir}` writes the report again; `python -m "
            f"experiments.check --run_dir={run_dir}` names the remedy of a damaged "
            "file.",
            stacklevel=2,
        )


def _pieces(runs, data: ProblemData, faults, share) -> Iterator[bytes]:
    """The page, piece by piece."""
    template, style, script = _page()
    index = data.index() | {
        "runs": [
            {
                "name": run.name,
                "few_shot": text(run.prompts, "few_shot"),
                "few_shot_hinted": text(run.prompts, "few_shot_hinted"),
                "answer_marker": text(run.prompts, "answer_marker"),
            }
            for run in runs
        ]
    }
    values = {
        "title": " and ".join(run.name for run in runs),
        "version": star_keras.__version__,
        "style": style,
        "script": script,
        "hashes": {"style": _hash(style), "script": _hash(script)},
        "faults": faults,
        "share": share,
        "facts": facts(runs, data.counts),
        "accuracy_charts": overview.accuracy_charts(runs),
        "accuracy_tables": overview.accuracy_tables(runs),
        "kept_charts": overview.kept_charts(runs),
        "kept_table": overview.kept_table(runs),
        "time_table": overview.time_table(runs, data.counts),
        "more_tables": [overview.settings_table(runs), overview.metrics_table(runs)],
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
        "left": charts.LEFT,
        "right": charts.RIGHT,
        "index": index,
        "columns": data.columns(),
        "chunks": data.chunks(),
    }
    for piece in template.generate(values):
        # A name from a file may contain invalid Unicode, shown as a replacement mark.
        yield piece.encode("utf-8", "replace")


@functools.cache
def _page():
    """The template, the style and the script."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, *scripts = (
        (_PAGE / name).read_text("utf-8") for name in ("report.css", *_SCRIPTS)
    )
    template = environment.from_string((_PAGE / "report.html").read_text("utf-8"))
    return template, Markup(style), Markup("\n".join(scripts))


def _hash(content: str) -> str:
    """The hash of a script or a style for a content security policy."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
