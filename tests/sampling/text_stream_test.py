"""New tokens as new text."""

import random

import pytest

from star_keras import testing
from star_keras.sampling.stopping import CompletionReader
from star_keras.sampling.text_stream import TextStream

TOKENIZER = testing.byte_tokenizer()
TEXT = "a \u00e9\u00fc\u4e2d \U0001f600 zz!\u00e9 stop! and so on"


@pytest.mark.parametrize("stop", [(), ("stop!",), ("!\u00e9", "on"), ("sto", "stop")])
def test_the_parts_are_the_text_and_nothing_is_taken_back(stop):
    generator = random.Random(0)
    ids = [int(i) for i in TOKENIZER(TEXT)]
    completion = CompletionReader(TOKENIZER, len(ids)).read(ids, stop)
    for _ in range(20):
        stream, parts, start = TextStream(TOKENIZER, stop), [], 0
        # What comes before the tokens that end the completion.
        while (end := start + generator.randint(1, 5)) < completion.num_tokens:
            parts.append(stream.add(ids[start:end]))
            start = end
        for part in parts:
            assert "\ufffd" not in part
        parts.append(stream.finish(completion.text))
        assert "".join(parts) == completion.text


def test_text_comes_as_soon_as_it_is_sure():
    stream = TextStream(TOKENIZER, ["##"])
    assert stream.add(TOKENIZER("ab#").tolist()) == "ab"
    assert stream.add(TOKENIZER("c").tolist()) == "#c"
    first, *rest = TOKENIZER("\u00e9").tolist()
    assert stream.add([first]) == ""
    assert stream.add(rest) == "\u00e9"
