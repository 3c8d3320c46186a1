"""Multiple-choice questions of your own, or of ARC, MMLU and OpenBookQA.

One of its worked examples as the model sees it; a hint marks the right choice:

    Q: Which of these is a physical change?
    Answer Choices:
    (a) paper burns
    (b) iron rusts
    (c) ice melts (CORRECT)
    (d) milk turns sour
    A:

A record of ARC (Clark et al., https://arxiv.org/abs/1803.05457) has this layout:

    {"question": "Who barks?", "choices": {"label": ["1", "2"], "text": ["cat", "dog"]},
     "answerKey": "2"}
"""

import re

from star_keras.tasks.choices import LETTERS, read_choices
from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.record_fields import optional_text
from star_keras.tasks.task import Problem
from star_keras.utils.errors import invalid

_CHOICES = "\nAnswer Choices:\n"
_MARK = " (CORRECT)"
_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)")
# A further letter: "(a) or (b)", "sea (a) or lake (b)".
_OTHER = re.compile(
    r"(?:[\s,/&*]*(?:(?:or|and)\b[\s*]*)?|[\s,*]*or\s[^.()\n]*)\(\s*([A-Za-z])\s*\)"
)
# Directly after the marker: "b) dog", "option B", "B."; neither "a boat" nor "U.S.".
_DIRECT = re.compile(
    r"""[\s:*"']*(?:
    ([A-Za-z])\)(?![^.\n]*\s[A-Za-z]\))
    |(?:[Oo]ption|[Cc]hoice)\s+\**(?:([A-Z])(?![\w'-])|([a-z])(?=[*\s]*(?:[.,:;\n]|\Z)))
    |([A-Z])\.(?!\w|\s?[A-Z]\.)
    )(?![\s,/*]*(?:or|and)\b)""",
    re.VERBOSE,
)
_MARKS = " .:,*\"'"
_ARTICLE = re.compile(r"^(?:an?|the) ")
_ALONE = re.compile(r"\W*([A-Za-z])\W*", re.ASCII)


class MultipleChoice(JsonLines):
    """Questions with 2 to 26 choices, from `train_path` and `eval_path`.

    An answer is a lower-case letter: choices are shown as (a), (b) and so on, whatever
    their labels are. Layouts: see `star_keras.tasks.choices.read_choices`.

    Args:
        train_path: Problems to train on. Its lines with a `rationale` replace the
            worked examples, five questions of school science.
        eval_path: Held-out problems.

    Attributes:
        takes_equal_choices: Whether another choice may have the text of the right one.

    Raises:
        ValueError: by `problems`, if a record has the right choice twice.
        ValueError, FileNotFoundError, ConnectionError, ImportError: see `JsonLines`.
    """

    name = "multiple_choice"
    has_examples = True
    answer_marker = "Therefore, the answer is"
    hint_format = "Q: {question}\nA:"
    marks_hints = True
    takes_equal_choices = False

    @property
    def system_text(self):
        return (
            f'Think about the choices. End with "{self.answer_marker}", the choice and '
            "its letter in brackets."
        )

    def make_problem(self, record, default_id):
        question, texts, answer = read_choices(record)
        right = None if answer is None else texts[LETTERS.index(answer)]
        if not self.takes_equal_choices and texts.count(right) > 1:
            rule = f"the right choice {right!r} once, since a single letter is right"
            remedy = "Change the other one, or leave the record out."
            raise invalid("choices", rule, texts, remedy)
        lines = [
            f"({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False)
        ]
        return Problem(
            id=optional_text(record, "id") or default_id,
            question=question + _CHOICES + "\n".join(lines),
            answer=answer,
            problem_class=optional_text(record, "class") or "",
        )

    def question_text(self, problem, hint=False):
        stem, _, choices = problem.question.rpartition(_CHOICES)
        if hint:
            right = _choice_line(problem)
            choices = "\n".join(
                line + _MARK if line == right else line for line in choices.split("\n")
            )
        return f"{stem}{_CHOICES}{choices}"

    def format_response(self, rationale, problem):
        if not rationale:
            return f" ({problem.answer})"
        text = _choice_line(problem).partition(") ")[2]
        return f" {rationale} {self.answer_marker} {text} ({problem.answer})."

    def extract_answer(self, completion):
        """The letter in `"... the answer is blotter (b)."`, `"(b)"` or `"B"`.

        After the last "answer is", the first letter in brackets counts, unless another
        one is named with it: "(a) or (b)". Without any in brackets, `"b) dog"`,
        `"option B"` and `"B."` directly after "answer is" count. Without "answer is",
        the last letter in brackets counts.
        """
        _, marker, conclusion = self._split_at_marker(completion)
        letters = list(_IN_BRACKETS.finditer(conclusion))
        if letters:
            letter = letters[0 if marker else -1]
            other = _OTHER.match(conclusion, letter.end())
            names_two = other and other[1].lower() != letter[1].lower()
            return None if names_two else letter[1].lower()
        found = _ALONE.fullmatch(conclusion)
        if marker and not found:
            found = _DIRECT.match(conclusion)
        return found[found.lastindex].lower() if found else None

    def working_fault(self, completion, problem):
        """What is wrong with the words before the letter: not the right choice."""
        conclusion = self._split_at_marker(completion)[2]
        named = _plain(_IN_BRACKETS.split(conclusion, maxsplit=1)[0])
        right = _choice_line(problem).partition(") ")[2]
        if named == _plain(right):
            return ""
        return f"the words {named!r:.80} are not {right!r:.80}"

    def _split_at_marker(self, completion):
        marker = self.answer_marker
        marker = "answer is" if marker.endswith("answer is") else marker
        return completion.rpartition(marker)


def _plain(choice):
    words = " ".join(choice.casefold().split()).strip(_MARKS)
    return _ARTICLE.sub("", words).strip(_MARKS)


def _choice_line(problem):
    lines = problem.question.rpartition(_CHOICES)[2].split("\n")
    return next(line for line in lines if line.startswith(f"({problem.answer}) "))
