import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from star_keras.models.hugging_face.hugging_face_tokenizer import HuggingFaceTokenizer
from star_keras.sampling.stopping import CompletionReader
from star_keras.training.examples import tokenize_examples
from star_keras.utils.continuations import Continuations
from tests.forks import ROOT

TEXTS = [" The answer", "The answer", "\nThe\n\nanswer", "  The", "", "é", " 答え"]
WORDS = ("▁", "▁The", "The", "▁answer", "answer", ":", "a", "T", "h", "e")


def sentence_piece(kind):
    """A tokenizer of bytes and some words, with a blank before each text."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + list(WORDS)
    model = models.Unigram(
        [(t, -float(i < 256)) for i, t in enumerate(tokens)], 0, True
    )
    tokenizer = tokenizers.Tokenizer(model)
    steps = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if kind == "prepend":
        blanks = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence(list(blanks))
        steps.insert(0, decoders.Replace("▁", " "))
        tokenizer.decoder = decoders.Sequence(steps)
    else:
        blanks = {"replacement": "▁", "prepend_scheme": kind, "split": False}
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**blanks)
        metaspace = decoders.Metaspace(replacement="▁", prepend_scheme=kind)
        steps = [metaspace, decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(steps)
    return HuggingFaceTokenizer(tokenizer, end_token_ids=[0], start_token_id=1)


@pytest.mark.parametrize("kind", ["prepend", "first", "always"])
def test_continuations_are_the_ends_of_whole_texts(kind):
    tokenizer = sentence_piece(kind)
    rows = Continuations(tokenizer).tokenize(TEXTS)
    prompt = "The answer:"
    ids = tokenizer([prompt])[0]
    for text, row in zip(TEXTS, rows, strict=True):
        assert [*ids, *row] == tokenizer([prompt + text])[0]
    assert Continuations(tokenizer).detokenize(rows) == TEXTS


@pytest.mark.parametrize("name", ["mistral", "phi3", "llama_bin", "qwen2", "gemma"])
def test_continuations_are_read_as_they_were_written(name):
    file = ROOT / "tests" / "fixtures" / "hugging_face" / name / "tokenizer.json"
    tokenizer = HuggingFaceTokenizer(file.read_text("utf-8"), end_token_ids=[0])
    continuations = Continuations(tokenizer)
    assert continuations.detokenize(continuations.tokenize(TEXTS)) == TEXTS


def test_half_a_character_at_the_beginning_is_no_part_of_the_text_before():
    tokenizer = sentence_piece("prepend")
    (row,) = Continuations(tokenizer).tokenize(["é"])
    assert Continuations(tokenizer).detokenize([row[:1], row]) == ["\ufffd", "é"]


def test_a_completion_is_trained_on_with_the_tokens_that_were_sampled():
    tokenizer = sentence_piece("prepend")
    sampled = tokenizer(["The answer: The\nanswer"])[0][3:]
    completion = CompletionReader(tokenizer, 32).read([*sampled, 0])
    assert completion.text == " The\nanswer"
    preprocessor = type("", (), {"tokenizer": tokenizer, "add_start_token": True})
    texts = [("The answer:", completion.text, 1.0)]
    (example,) = tokenize_examples(preprocessor, texts)
    np.testing.assert_array_equal(example.response_ids, [*sampled, 0])


def test_unknown_characters_are_kept_without_bytes_for_them():
    scores = [("<unk>", 0.0), *((word, -1.0) for word in WORDS)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, 0, False))
    blanks = {"replacement": "▁", "prepend_scheme": "always", "split": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**blanks)
    tokenizer = HuggingFaceTokenizer(tokenizer, end_token_ids=[0], start_token_id=1)
    texts = ["é", "\nThe", "The"]
    assert Continuations(tokenizer).tokenize(texts) == tokenizer(texts)


def test_other_tokenizers_are_left_alone(byte_tokenizer):
    continuations = Continuations(byte_tokenizer)
    assert continuations.tokenize(["ab"]) == [byte_tokenizer("ab").tolist()]
    assert continuations.detokenize([byte_tokenizer("ab").tolist()]) == ["ab"]
