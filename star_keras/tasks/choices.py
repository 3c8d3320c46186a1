"""Multiple-choice records in the layouts of CommonsenseQA, ARC and MMLU, read alike."""

import re

from star_keras.tasks.record_fields import optional_text, required_text
from star_keras.tasks.record_sources import IntegerCell
from star_keras.utils.errors import invalid

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# A letter, or the mark of a hint.
_IN_BRACKETS = re.compile(r"\(\s*([A-Z]|CORRECT)\s*\)", re.IGNORECASE)


def read_choices(record: dict) -> tuple[str, list[str], str | None]:
    """The question, the texts of its choices and the letter of the right one.

    `question` is a text, or an object of `stem` and `choices`. `choices` are texts,
    objects of `label` and `text`, or an object of two lists `label` and `text`.
    `answerKey` or `answer` is a label, which may be a number. Choices without labels
    have the labels a, b, c; an integer then counts them from 0, also in CSV, if none of
    them is this integer.

    Letters go by position, whatever the labels are. A single letter in brackets in a
    choice gets square brackets: in round ones it names a choice. So does "(CORRECT)",
    which marks the right choice in a hint.

    Args:
        record: A line's JSON object.

    Returns:
        E.g. `("Who barks?", ["cat", "dog"], "b")`, with single blanks; `None` for the
        letter if the record has neither `answerKey` nor `answer`.

    Raises:
        ValueError: if the record has none of these layouts, or the right choice is
            none of its choices.
    """
    source = record
    if isinstance(record.get("question"), dict):
        source = record["question"]
        question = _one_line(required_text(source, "stem"))
    else:
        question = _one_line(required_text(record, "question"))
    labels, texts = _columns(source.get("choices"))
    if not 2 <= len(texts) <= len(LETTERS):
        raise invalid(
            "choices", f"2 to {len(LETTERS)} texts", source.get("choices"), _REMEDY
        )
    texts = [
        _IN_BRACKETS.sub(r"[\1]", _one_line(required_text({"choice": text}, "choice")))
        for text in texts
    ]
    place = _right_choice(record, labels, texts)
    return question, texts, None if place is None else LETTERS[place]


_REMEDY = 'Write them like ["cat", "dog"].'


def _one_line(text):
    return " ".join(text.split())


def _columns(choices):
    """The labels, `None` without any, and the texts."""
    if isinstance(choices, list) and any(isinstance(c, dict) for c in choices):
        names = {"label", "text"}
        if not all(isinstance(c, dict) and names <= c.keys() for c in choices):
            rule = "objects of `label` and `text`, or texts"
            raise invalid("choices", rule, choices, _REMEDY)
        labels, texts = ([c[name] for c in choices] for name in ("label", "text"))
    elif isinstance(choices, dict):
        labels, texts = choices.get("label"), choices.get("text")
        is_lists = isinstance(labels, list) and isinstance(texts, list)
        if not is_lists or len(labels) != len(texts):
            rule = "two lists `label` and `text` of the same length"
            raise invalid("choices", rule, choices, _REMEDY)
    elif isinstance(choices, list):
        return None, choices
    else:
        rule = "a list of texts, or texts with their labels"
        raise invalid("choices", rule, choices, _REMEDY)
    labels = [_label(required_text({"label": label}, "label")) for label in labels]
    if len(set(labels)) < len(labels):
        raise invalid("choices", "different labels", choices, "Name each once.")
    return labels, texts


def _label(text):
    return text.strip().strip("().").strip().lower()


def _right_choice(record, labels, texts):
    """The number of the right choice, from 0; `None` if none is given."""
    count = len(texts)
    names = [n for n in ("answerKey", "answer") if optional_text(record, n) is not None]
    if not names:
        return None
    places = []
    for name in names:
        value = record[name]
        if labels is None and isinstance(value, IntegerCell):
            if value.strip() in texts:
                rule = "a letter, since an integer is one of the choices"
                remedy = f"Write one of {', '.join(LETTERS[:count])}."
                raise invalid(name, rule, value, remedy)
            value = int(value)
        if labels is None and isinstance(value, int) and 0 <= value < count:
            places.append(value)
            continue
        known = list(LETTERS[:count]) if labels is None else labels
        label = _label(optional_text(record, name))
        if label not in known:
            rule = f"one of the labels {known}"
            if labels is None:
                rule += f", or an integer from 0 to {count - 1}"
            raise invalid(name, rule, value, "Correct it, or leave the line out.")
        places.append(known.index(label))
    if len(set(places)) > 1:
        rule = f"the same choice as answerKey={record['answerKey']!r}"
        raise invalid("answer", rule, record["answer"], "Leave one of them out.")
    return places[0]
