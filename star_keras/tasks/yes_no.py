"""Questions whose answer is yes or no, such as those of StrategyQA.

One of its worked examples:

    Q: Would a vegan order the cheese plate in a restaurant?
    A: Vegans eat nothing that comes from animals. Cheese is made of milk, and milk
    comes from animals such as cows and goats. The answer is no.

A record of StrategyQA (Geva et al., https://arxiv.org/abs/2101.02235) has a `question`
and an `answer`, `true` or `false`.
"""

import re

from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.record_fields import optional_text
from star_keras.utils.errors import invalid

_WORDS = {"yes": "yes", "true": "yes", "1": "yes"}
_WORDS |= {"no": "no", "false": "no", "0": "no"}
_FIRST = re.compile(r"\W*(yes|no|true|false)\b", re.IGNORECASE)
# A word of its own: neither "no dog" nor "there is no".
_ALONE = re.compile(
    r"(?:\A|[.!?:,\n])[\s*]{0,9}(?:so,?\s)?(yes|no)(?=\s?[,.!?;:*\n]|\Z)", re.IGNORECASE
)


class YesNo(JsonLines):
    """Yes-or-no questions from `train_path` and `eval_path`.

    The `answer` of a record is `yes`, `no`, `true`, `false`, 1 or 0.

    Args:
        train_path: Problems to train on. Its lines with a `rationale` replace the
            worked examples.
        eval_path: Held-out problems.

    Raises:
        ValueError, FileNotFoundError, ConnectionError, ImportError: see `JsonLines`.
    """

    name = "yes_no"
    has_examples = True

    @property
    def system_text(self):
        return f'Reason step by step. End with "{self.answer_marker} yes." or "... no."'

    def make_problem(self, record, default_id):
        if isinstance(record.get("answer"), bool):
            record = {**record, "answer": str(record["answer"])}
        answer = optional_text(record, "answer")
        if answer is None:
            return super().make_problem(record, default_id)
        word = answer.strip().rstrip(".").lower()
        if word not in _WORDS:
            remedy = "Correct it, or leave the line out."
            raise invalid("answer", "yes, no, true or false", record["answer"], remedy)
        record = {**record, "answer": _WORDS[word]}
        return super().make_problem(record, default_id)

    def extract_answer(self, completion):
        """The yes or no directly after the last marker."""
        _, found, rest = completion.rpartition(self.answer_marker)
        word = _FIRST.match(rest) if found else None
        return _WORDS[word[1].lower()] if word else None

    def extract_answer_flexible(self, completion):
        """The strict reading, or else the last separate yes or no."""
        alone = _ALONE.findall(completion)
        return self.extract_answer(completion) or (alone[-1].lower() if alone else None)
