"""Tokens that are parts of characters, as clients see them."""

import ast
import json

import pytest

from star_keras import testing
from star_keras.models.hugging_face.tokenizer_files import read_tokenizer
from star_keras.serving.token_texts import TokenTexts
from star_keras.utils.continuations import Continuations
from tests.models.hugging_face.cases import FIXTURES

TEXT = "a \U0001f642\u00e9 \U0001f389\u6570."


def hugging_face(name):
    directory = FIXTURES / name
    return read_tokenizer(
        directory, json.loads((directory / "config.json").read_text())
    )


@pytest.fixture(params=["bytes", "llama_tied", "llama_untied", "gemma3", "qwen3"])
def tokenizer(request):
    if request.param == "bytes":
        return testing.byte_tokenizer()
    return hugging_face(request.param)


def test_the_bytes_of_all_tokens_are_those_of_the_text(tokenizer):
    (ids,) = Continuations(tokenizer).tokenize([TEXT])
    values = [-1.0] * len(ids)
    top = [[(i, -1.0)] for i in ids]
    found = TokenTexts(tokenizer).chat_log_probs(ids, values, top, 1)["content"]
    assert any("\ufffd" in token["token"] for token in found)
    assert bytes(b for token in found for b in token["bytes"]).decode() == TEXT
    assert all(x["top_logprobs"][0]["bytes"] == x["bytes"] for x in found)


def test_parts_of_characters_have_different_names_in_completions(tokenizer):
    (ids,) = Continuations(tokenizer).tokenize([TEXT])
    texts = TokenTexts(tokenizer)
    pairs = [(i, -float(n)) for n, i in enumerate(dict.fromkeys(ids), start=1)]
    values = [dict(pairs)[i] for i in ids]
    found = texts.completion_log_probs(ids, values, [pairs] * len(ids), len(pairs), 5)
    for token, value, top in zip(
        found["tokens"], values, found["top_logprobs"], strict=True
    ):
        assert len(top) == len(pairs)
        assert top[token] == value
    assert b"".join(map(raw, found["tokens"])).decode() == TEXT
    assert found["text_offset"][:2] == [5, 5 + len(texts.texts(ids[:1])[0])]


def raw(token):
    """The bytes of a name such as `bytes:\\xf0\\x9f`."""
    if token.startswith("bytes:"):
        return ast.literal_eval(f"b'{token.removeprefix('bytes:')}'")
    return token.encode()
