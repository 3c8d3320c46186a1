"""The tokenizer of a Hugging Face directory, read and written."""

import json
from pathlib import Path

import tokenizers

from star_keras.models.hugging_face.hugging_face_tokenizer import (
    HuggingFaceTokenizer,
)
from star_keras.models.hugging_face.tensor_files import read_json

# Kept as they are, for an export.
_KEPT = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
_OTHER_KINDS = ("tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")


def read_tokenizer(directory, config, max_sequence_length=None):
    """The tokenizer of a Hugging Face directory.

    Args:
        directory: Path of the directory.
        config: dict. Its config.json.
        max_sequence_length: int. The longest sequence of the model.

    Returns:
        A `HuggingFaceTokenizer`, or `None` if the directory has no tokenizer. Its
        `start_token_id` is `None` unless the directory's own post-processor adds a
        start token.

    Raises:
        ValueError: if there is a tokenizer of another kind alone, or no end token is
            known.
    """
    directory = Path(directory)
    path = directory / "tokenizer.json"
    if not path.is_file():
        check_tokenizer_kind(directory, (file.name for file in directory.iterdir()))
        return None
    tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    files = {
        name: (directory / name).read_text(encoding="utf-8")
        for name in _KEPT
        if (directory / name).is_file()
    }
    ends = _end_token_ids(directory, config, tokenizer)
    if not ends:
        raise ValueError(
            f"{directory} names no end token. Expected `eos_token_id` in config.json "
            "or generation_config.json, or `eos_token` in tokenizer_config.json."
        )
    pad = _token_id(directory, tokenizer, "pad_token")
    if pad is None:
        pad = config.get("pad_token_id")
    size = _vocabulary_end(tokenizer)
    return HuggingFaceTokenizer(
        tokenizer,
        end_token_ids=ends,
        start_token_id=_start_token_id(directory, tokenizer),
        # Some files say -1.
        pad_token_id=pad if pad is not None and 0 <= pad < size else None,
        max_sequence_length=max_sequence_length,
        files=files,
    )


def check_tokenizer_kind(place, names):
    """Refuse a tokenizer that is not read, which is none at all in silence otherwise.

    Args:
        place: The directory or the handle that has the files, for the message.
        names: Names of the files.

    Raises:
        ValueError: if there is a tokenizer of another kind and no tokenizer.json.
    """
    names = set(names)
    others = [name for name in _OTHER_KINDS if name in names]
    if others and "tokenizer.json" not in names:
        raise ValueError(
            f"{place} has {others}, but no tokenizer.json. Write one with "
            "transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )


def write_tokenizer(tokenizer, directory):
    """Write the tokenizer of a model, and the files that were kept with it.

    Args:
        tokenizer: A `HuggingFaceTokenizer`.
        directory: Path of the directory, which exists.
    """
    directory = Path(directory)
    for name, text in tokenizer.files.items():
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    config = json.loads(tokenizer.files.get("tokenizer_config.json", "{}"))
    if not config:
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": tokenizer.id_to_token(tokenizer.end_token_id),
            "pad_token": tokenizer.id_to_token(tokenizer.pad_token_id),
        }
        if tokenizer.start_token_id is not None:
            config["bos_token"] = tokenizer.id_to_token(tokenizer.start_token_id)
        (directory / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )


def _end_token_ids(directory, config, tokenizer):
    """All end tokens, the tokenizer's own first, each once."""
    found = [_token_id(directory, tokenizer, "eos_token")]
    generation = read_json(directory / "generation_config.json")
    for ids in (generation.get("eos_token_id"), config.get("eos_token_id")):
        found += ids if isinstance(ids, list) else [ids]
    size = _vocabulary_end(tokenizer)
    return list(dict.fromkeys(i for i in found if i is not None and 0 <= i < size))


def _vocabulary_end(tokenizer):
    """The lowest number above all ids, which may have gaps."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def _token_id(directory, tokenizer, name):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json(directory / file).get(name)
        if token:
            text = token["content"] if isinstance(token, dict) else token
            return tokenizer.token_to_id(text)
    return None


def _start_token_id(directory, tokenizer):
    """Id of the token that the post-processor puts before a text, or `None`."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a").ids
    if not plain or ids == plain:
        return None
    start = next(
        (i for i in range(len(ids)) if ids[i : i + len(plain)] == plain), len(ids)
    )
    if start > 1:
        raise ValueError(
            f"{directory / 'tokenizer.json'} puts {start} tokens before a text. "
            "Expected at most one."
        )
    return ids[0] if start else None
