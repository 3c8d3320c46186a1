r"""The format of a prompt: a line of a prompts file, in place of the task's own.

{"format": {"question": "Problem: {question}\nSolution:",
            "hint": "Problem: {question}\nResult: {answer}\nSolution:",
            "answer_marker": "Result:", "stop": ["\nProblem:"]}}
"""

import re

from star_keras.tasks.record_sources import read_records
from star_keras.tasks.sources import read_examples
from star_keras.tasks.task import EXAMPLE_SEPARATOR, Task
from star_keras.tasks.task_validation import check_example
from star_keras.utils.errors import invalid
from star_keras.utils.records import is_text
from star_keras.utils.texts import check_stop

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ATTRIBUTES = {
    "question": "question_format",
    "hint": "hint_format",
    "answer_marker": "answer_marker",
    "stop": "stop",
}


def read_prompts_file(task: Task, path):
    """Give a task the format and the worked examples of a file.

    Args:
        task: The task, which changes.
        path: A file, see `read_records`. Its first record may have the field `format`;
            the others are problems with a `rationale`. A file without such problems
            keeps the worked examples of the task.

    Raises:
        ValueError: if a line is malformed, a part of the format is unknown or invalid,
            or a worked example can never be right; names the file and the line.
    """
    records = list(read_records(path))
    has_format = bool(records) and "format" in records[0][2]
    if has_format:
        place, _, record = records.pop(0)
        try:
            if record.keys() != {"format"}:
                rule = "a line of its own"
                remedy = "Leave the other fields out."
                raise invalid("format", rule, sorted(record), remedy)
            _set_format(task, record["format"])
        except ValueError as error:
            raise ValueError(f"{path}, {place}: {error}") from None
    if records or not has_format:
        task.few_shot_examples = read_examples(path, task.make_problem, records)
    try:
        for example in task.few_shot_examples:
            check_example(task, example)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _set_format(task, parts):
    fields = [name for name in _ATTRIBUTES if name in task.format_fields]
    if not isinstance(parts, dict) or not parts or not parts.keys() <= set(fields):
        raise invalid("format", f"an object of some of {fields}", parts)
    for name, value in parts.items():
        if name == "stop":
            check_stop(value)
        elif not is_text(value) or not value.strip():
            raise invalid(name, "a text that is not blank", value)
    _check_questions(task, parts)
    marker = parts.get("answer_marker", "")
    if marker != marker.strip():
        raise invalid("answer_marker", "a text without blanks around it", marker)
    for name, value in parts.items():
        setattr(task, _ATTRIBUTES[name], tuple(value) if name == "stop" else value)
    following = EXAMPLE_SEPARATOR + task.question_format
    if not any(stop in following for stop in task.stop):
        rule = f"a string of {following!r}, the beginning of the next question"
        raise invalid("stop", rule, list(task.stop), "Sampling would not end there.")


def _check_questions(task, parts):
    if ("question" in parts) != ("hint" in parts):
        rule = "`question` and `hint`, or neither"
        raise invalid("format", rule, parts, "Both are questions of one form.")
    for name, needed in (("question", ["question"]), ("hint", ["question", "answer"])):
        found = sorted(_PLACEHOLDER.findall(parts.get(name, "")))
        allowed = [needed, ["question"]] if task.marks_hints else [needed]
        if name in parts and found not in [sorted(names) for names in allowed]:
            rule = " and ".join(f"{{{n}}}" for n in needed) + " once"
            raise invalid(
                name, f"a text with {rule}, and nothing else in braces", parts[name]
            )
