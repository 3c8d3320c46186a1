"""Examples of plain fine-tuning: text, prompts with responses, chats, token ids."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from star_keras.tasks.record_fields import required_text
from star_keras.tasks.record_sources import (
    TEXT_FILES,
    existing_source,
    read_records,
)
from star_keras.training.examples import (
    TrainingExample,
    response_tokens,
    tokenize_examples,
    tokenize_prompts,
)
from star_keras.training.token_rows import is_token_rows, read_token_rows
from star_keras.utils.errors import invalid
from star_keras.utils.files import read_utf8

# Texts that are tokenized together.
_BATCH = 256
_FORMS = '"text"; "prompt" and "response" or "completion"; or "messages"'
# Other fields, such as names and sources, are no part of an example.
_CONTENTS = "text", "prompt", "response", "completion", "messages", "tools", "functions"


def read_fine_tuning_examples(
    path, preprocessor, *, max_length: int, vocabulary_size: int, argument: str
) -> Iterator[TrainingExample]:
    """Read a file, or a split of a dataset, as tokenized examples.

    | source | an example is | trained on |
    | --- | --- | --- |
    | `*.txt`; the field `text` | a piece of the document, end token included | all |
    | `prompt` and `response` | the two, tokenized separately | response, end token |
    | `messages` | the turns up to one of the assistant | that turn, end of turn |
    | `prompt` and `completion`, texts | as with `response` | completion, end token |
    | the same, lists of messages | as `messages` | the assistant in the completion |
    | `*.tfrecords`, `*.index` | a piece of a row, see `read_token_rows` | all |

    Documents and rows that are too long are cut into pieces of `max_length` tokens; the
    first token of a piece is the last of the piece before it, so that each token is
    learned once. The first token of all is learned if the model has a start token.
    Prompts, responses and messages are not cut. A turn of weight 0 is no example.

    Args:
        path: A file: `*.txt`, TFRecords, or records as in `read_records` (JSON lines,
            CSV, Parquet; datasets).
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`. Messages need the
            chat template of its tokenizer.
        max_length: Longest example, in tokens.
        vocabulary_size: Token ids of rows are below it.
        argument: The argument that `path` comes from, for errors.

    Yields:
        The examples, in the order of the file.

    Raises:
        ValueError: if a record is malformed or too long, a token id is unknown, the
            model has no chat template, or there is nothing to train on; names file
            and line.
        FileNotFoundError: if there is no such file.
        ConnectionError, ImportError: see `read_records`.
    """
    if preprocessor is None:
        rule = "that of a model with a tokenizer"
        raise invalid("preprocessor", rule, preprocessor, "Name another model.")
    source = existing_source(path, argument, TEXT_FILES)
    is_file = isinstance(source, Path)
    if is_file and is_token_rows(source):
        examples = _rows(source, max_length, vocabulary_size)
    else:
        if is_file and source.suffix == ".txt":
            items = iter([(str(source), _document(source))])
        else:
            template = getattr(preprocessor.tokenizer, "chat_template", None)
            items = _items(source, template)
        examples = _tokenized(items, preprocessor, max_length)
    first = next(examples, None)
    if first is None:
        raise ValueError(
            f"{source}: expected at least one example. Received none. Write some. "
            "A turn of weight 0 is no example."
        )
    yield first
    yield from examples


# === Records ===


def _document(path):
    text = read_utf8(path)
    if not text.strip():
        raise ValueError(f"{path}: the file is blank. Expected text.")
    return "text", text


def _items(source, template) -> Iterator[tuple[str, tuple]]:
    """Pairs of a place and `(kind, text)` or `(kind, prompt, response)`."""
    for where, _, record in read_records(source):
        place = f"{source}, {where}"
        try:
            for item in _parts(record, template):
                yield place, item
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None


def _parts(record, template):
    names = "text", "prompt", "messages"
    found = [name for name in names if not _is_absent(record.get(name))]
    if len(found) > 1:  # tables may have [] in the fields that a record lacks
        found = [name for name in found if not _is_empty(record[name])]
    if len(found) != 1:
        raise ValueError(
            f"Expected the fields {_FORMS}. Received: {sorted(record)}. Rename or "
            "remove fields."
        )
    used = found
    if found == ["prompt"]:
        has_response = not _is_empty(record.get("response"))
        is_completion = "completion" in record and not has_response
        used = ["prompt", "completion" if is_completion else "response"]
    has_messages = used[-1] == "completion" and any(
        isinstance(record[name], list | dict | np.ndarray) for name in used
    )
    for name in _CONTENTS:
        if name not in used and not _is_empty(record.get(name)):
            rule = f'no such field beside "{found[0]}"'
            raise invalid(name, rule, record[name], "Rename or remove it.")
    if found == ["text"]:
        yield "text", required_text(record, "text")
    elif found == ["prompt"] and not has_messages:
        yield "pair", *(required_text(record, name) for name in used)
    elif template is None:
        raise invalid(
            used[0],
            "a model with a chat template",
            record[used[0]],
            "Put a chat_template.jinja into the directory of the model, or use texts "
            'in the fields "prompt" and "response".',
        )
    else:
        yield from _turns({name: record[name] for name in used}, template)


def _turns(fields, template):
    """The turns of the assistant in the last field, behind those before them."""
    rule = (
        'a list of {"role": ..., "content": ...} with an optional "system" first, '
        'then "user" and "assistant" in turn, "assistant" last'
    )
    remedy = ""
    if len(fields) > 1:
        rule += ", in `prompt` and `completion` together"
        remedy = "Use messages in both fields, or a text in both."
    for name, messages in fields.items():
        if not _is_messages(messages):
            raise invalid(name, rule, messages, remedy)
    turns = [(m["role"], m["content"]) for m in itertools.chain(*fields.values())]
    system = turns.pop(0)[1] if turns[0][0] == "system" else ""
    roles = [role for role, _ in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise invalid(" + ".join(fields), rule, roles or messages)
    learned = [
        _is_learned(message, f"{name}[{i}]") and name == list(fields)[-1]
        for name, messages in fields.items()
        for i, message in enumerate(messages)
    ][-len(turns) :]
    for end in range(1, len(turns), 2):
        if learned[end]:
            prompt = template.prompt(turns[:end], system)
            yield "chat", prompt, template.completion(turns[end][1])


def _is_messages(value):
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in value
        )
    )


def _is_learned(message, place):
    """Whether a turn of the assistant is learned, `weight` in OpenAI's format."""
    known = ["role", "content"] + ["weight"] * (message["role"] == "assistant")
    for name, value in message.items():
        if name not in known and not _is_empty(value):
            *names, last = (f"`{key}`" for key in known)
            rule = f"only {', '.join(names)} and {last} in a message of the "
            rule += message["role"]
            remedy = "Remove it, or write it into the content."
            raise invalid(f"{place}.{name}", rule, value, remedy)
    weight = message.get("weight")
    if isinstance(weight, np.ndarray) or weight not in (None, 0, 1):
        raise invalid(f"{place}.weight", "0 or 1", weight)
    return weight != 0


def _is_absent(value):
    return value is None or (isinstance(value, str) and not value)


def _is_empty(value):
    # Arrays have no truth value. Datasets may have them in place of lists.
    is_several = isinstance(value, list | dict | np.ndarray)
    return _is_absent(value) or (is_several and not len(value))


# === Token ids ===


def _tokenized(items, preprocessor, max_length):
    """The examples of `_items`, tokenized in batches."""
    for kind, group in itertools.groupby(items, lambda item: item[1][0]):
        while batch := list(itertools.islice(group, _BATCH)):
            places = [place for place, _ in batch]
            texts = [item[1:] for _, item in batch]
            if kind == "text":
                yield from _pieces_of_texts(texts, preprocessor, max_length)
                continue
            tokenizer = preprocessor.tokenizer
            chat = tokenizer.chat_template if kind == "chat" else None
            examples = tokenize_examples(
                preprocessor,
                [(*pair, 1.0) for pair in texts],
                **response_tokens(tokenizer, chat),
            )
            for place, example in zip(places, examples, strict=True):
                if len(example) > max_length:
                    raise ValueError(
                        f"{place}: an example of {len(example)} tokens. Expected at "
                        f"most {max_length}, the length of a row (--sequence_length) "
                        "or of the model's longest sequence. Use longer rows, or "
                        "shorten it."
                    )
                yield example


def _pieces_of_texts(texts, preprocessor, max_length):
    end = preprocessor.tokenizer.end_token_id
    for ids in tokenize_prompts(preprocessor, [text for (text,) in texts]):
        yield from pieces([*ids, end], max_length)


def pieces(ids: Iterable[int], max_length: int) -> Iterator[TrainingExample]:
    """Cut token ids into examples in which every token but the first is learned.

    Args:
        ids: At least two token ids.
        max_length: Longest example, in tokens.

    Example:
    ```python
    [example.response_ids.tolist() for example in pieces([7, 8, 9, 5], max_length=2)]
    # [[8, 9], [5]]
    ```
    """
    ids = np.asarray(ids, "int32")
    for start in range(0, len(ids) - 1, max_length):
        piece = ids[start : start + max_length + 1]
        yield TrainingExample(prompt_ids=piece[:1], response_ids=piece[1:])


def _rows(source, max_length, vocabulary_size):
    for place, ids in read_token_rows(source):
        if len(ids) < 2:
            raise ValueError(
                f"{place}: a row of one token. Expected at least two. Remove the row."
            )
        wrong = ids[(ids < 0) | (ids >= vocabulary_size)]
        if len(wrong):
            raise ValueError(
                f"{place}: the token id {wrong[0]}. Expected ids from 0 to "
                f"{vocabulary_size - 1}, those of the model. Was the file made with "
                "another tokenizer?"
            )
        yield from pieces(ids, max_length)
