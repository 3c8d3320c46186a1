import json

import hypothesis
import keras
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st

from star_keras.models import GPTJTokenizer

END = "<|endoftext|>"

TEXT = """
Q: A farmer has 17 sheep and doesn't sell 4 of them. How many can't he sell?
A: He doesn't sell 4, so it's 17 - 4 = 13 sheep that he'd sell. The answer is 4.

Q: Input: 6 2 4 + 2 5 9. What's the target?
Scratchpad: 4 + 9 , 3 C: 1; 2 + 5 + 1 , 8 C: 0; 6 + 2 , 8 C: 0. They're done.


Q: We'll count: one, two, three, four. I'm sure you've seen 1234567890 before.
    indented code():  return "twice  as  wide"
\tTabs\tand\ttrailing spaces   \nÜber naïve café, 数学 数学, 🙂🙂.
"""

AWKWARD = [
    "don't",
    "DON'T we'll it's they're I'm you've he'd",
    "'s 't ''s '",
    "a\n\n\nb",
    "\n\nQ",
    "\n\n Q",
    "\n\n\n\n",
    "Q: 1 + 2\n\nA: 3\n\n\n\nQ:",
    "trailing spaces   ",
    "   leading spaces",
    "in   between",
    " \n \n ",
    "\ttab\t\ttabs\t",
    "\r\nwindows\r\n\r\n",
    "1234567890 12 3.14 1,000 1/2 50%",
    "6 2 4 + 2 5 9",
    "🙂 👩‍🚀🏽 emoji🙂",
    "数学 问题。你好",
    "e\u0301 \u0301 na\u00efve \u00fcber",
    "\u00a0 no-break \u2003 em \u200b zero",
    "\x00\x01\x7f",
    "if x == y: return {'a': [1, 2]}  # ok?!",
    END,
    f"one{END}two",
    f"one {END} two\n{END}{END}\n",
    "<|endoftext|",
    "<|END|>",
    "",
    " ",
]


@pytest.fixture(scope="module")
def reference():
    """A byte-pair encoding made and read by `tokenizers` as GPT-2's is."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [TEXT],
        tokenizers.trainers.BpeTrainer(
            vocab_size=420,
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[END],
            show_progress=False,
        ),
    )
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer(reference):
    model = json.loads(reference.to_str())["model"]
    return GPTJTokenizer(
        vocabulary=model["vocab"], merges=[" ".join(pair) for pair in model["merges"]]
    )


def test_reference_has_merged_what_the_tests_are_about(reference):
    assert reference.get_vocab_size() == 420
    assert {"'t", "Ġsheep"} <= set(reference.get_vocab())


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_ids_equal_those_of_tokenizers(tokenizer, reference, text):
    np.testing.assert_array_equal(tokenizer(text), reference.encode(text).ids)


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_text_comes_back(tokenizer, text):
    assert tokenizer.detokenize(tokenizer(text)) == text


def test_a_batch_gives_the_ids_of_its_rows(tokenizer):
    for row, text in zip(tokenizer(AWKWARD), AWKWARD, strict=True):
        np.testing.assert_array_equal(row, tokenizer(text))
    assert tokenizer.detokenize(tokenizer(AWKWARD)) == AWKWARD


pieces = st.sampled_from([*AWKWARD, "'ll", " ", "\n", "\n\n", "A", "7"])
texts = st.text() | st.lists(pieces | st.text(max_size=3)).map("".join)


@hypothesis.settings(database=None, deadline=None, derandomize=True, max_examples=300)
@hypothesis.given(text=texts)
def test_any_text_has_the_reference_ids_and_comes_back(tokenizer, reference, text):
    ids = tokenizer(text)
    np.testing.assert_array_equal(ids, reference.encode(text).ids)
    assert tokenizer.detokenize(ids) == text


def test_end_token_starts_ends_and_pads(tokenizer):
    end = tokenizer.token_to_id(END)
    assert tokenizer.id_to_token(end) == END
    assert tokenizer.end_token_id == end
    assert tokenizer.start_token_id == end
    assert tokenizer.pad_token_id == end


def test_preset_round_trip(make_model, tokenizer, tmp_path):
    make_model().backbone.save_to_preset(str(tmp_path))  # a preset needs one
    tokenizer.save_to_preset(str(tmp_path))
    copy = GPTJTokenizer.from_preset(str(tmp_path))
    assert copy.get_vocabulary() == tokenizer.get_vocabulary()
    for text in AWKWARD:
        np.testing.assert_array_equal(copy(text), tokenizer(text))


def test_files_of_a_preset_make_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save_assets(str(tmp_path))
    copy = GPTJTokenizer(
        vocabulary=str(tmp_path / "vocabulary.json"),
        merges=str(tmp_path / "merges.txt"),
    )
    for text in AWKWARD:
        np.testing.assert_array_equal(copy(text), tokenizer(text))


def test_config_round_trip(tokenizer):
    copy = keras.layers.deserialize(keras.layers.serialize(tokenizer))
    assert type(copy) is GPTJTokenizer
    # The vocabulary is not part of a config, but of a preset.
    copy.set_vocabulary_and_merges(tokenizer.vocabulary, tokenizer.merges)
    np.testing.assert_array_equal(copy("don't\n\nQ"), tokenizer("don't\n\nQ"))
