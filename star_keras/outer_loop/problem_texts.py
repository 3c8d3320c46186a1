"""Files with the texts of a run's problems, readable without the task."""

import json
from collections.abc import Mapping, Sequence

from etils import epath

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.storage.run_files import PROBLEMS_NAME, PROMPTS_NAME
from star_keras.tasks.task import Problem
from star_keras.utils import files
from star_keras.utils.json_lines import write_json_lines


def write_problem_texts(
    directory,
    problems: Mapping[str, Sequence[Problem]],
    prompts: PromptBuilder,
    hinted: bool,
):
    """Write `problems.jsonl` and `prompts.json`; existing files stay.

    A line of `problems.jsonl` has `split`, `problem` (the id), `problem_class`,
    `question`, `answer`, `prompt` and `hinted_prompt`. Both prompts are without the
    worked examples; `hinted_prompt` is `null` for problems without a hint, and
    `answer` for those without one.
    `prompts.json` has the worked examples at the beginning of all prompts (`few_shot`
    and `few_shot_hinted`) and `answer_marker`.

    Args:
        directory: The run directory, local or `gs://`.
        problems: The problems of each split.
        prompts: Makes the prompts of samples.
        hinted: Whether the run samples with hints.

    Raises:
        OSError: if a file cannot be written; names it.
    """
    directory = epath.Path(directory)
    path = directory / PROBLEMS_NAME
    if not path.exists():
        lines = (
            _line(split, problem, prompts, hinted and split == "train")
            for split, group in problems.items()
            for problem in group
        )
        write_json_lines(path, lines)
    path = directory / PROMPTS_NAME
    if not path.exists():
        texts = {
            "few_shot": prompts.prefix(),
            "few_shot_hinted": prompts.prefix(hint=True),
            "answer_marker": prompts.task.answer_marker,
        }
        content = json.dumps(texts, indent=2, ensure_ascii=False) + "\n"
        files.write(path, content.encode("utf-8"))


def _line(split, problem, prompts, hinted):
    return {
        "split": split,
        "problem": problem.id,
        "problem_class": problem.problem_class,
        "question": problem.question,
        "answer": problem.answer,
        "prompt": prompts.question(problem),
        "hinted_prompt": prompts.question(problem, hint=True) if hinted else None,
    }
