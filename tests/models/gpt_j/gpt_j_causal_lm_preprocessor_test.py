import keras
import numpy as np
import pytest

from star_keras.models import GPTJCausalLMPreprocessor


@pytest.fixture
def preprocessor(byte_tokenizer):
    return GPTJCausalLMPreprocessor(byte_tokenizer, sequence_length=8)


@pytest.fixture
def ids(byte_tokenizer):
    """Token ids of a text, as a list."""
    return lambda text: np.asarray(byte_tokenizer(text)).tolist()


def test_training_rows_end_with_the_end_token_and_have_no_start_token(
    preprocessor, byte_tokenizer, ids
):
    end = byte_tokenizer.end_token_id
    x, y, weights = preprocessor(["abc", "abcdefghijkl"])
    np.testing.assert_array_equal(
        x["token_ids"], [[*ids("abc"), end, end, end, end, end], ids("abcdefgh")]
    )
    np.testing.assert_array_equal(
        x["padding_mask"], [[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8]
    )
    # The text is cut so that the end token has room.
    np.testing.assert_array_equal(y[1], [*ids("bcdefgh"), end])
    # The end token is a target, padding is not.
    np.testing.assert_array_equal(y[0], [*ids("bc"), end, end, end, end, end, end])
    np.testing.assert_array_equal(weights, [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8])


def test_start_and_end_tokens_are_as_asked_for(byte_tokenizer, ids):
    end = byte_tokenizer.end_token_id
    preprocessor = GPTJCausalLMPreprocessor(
        byte_tokenizer, sequence_length=6, add_start_token=True, add_end_token=False
    )
    x, _, _ = preprocessor("abc")
    np.testing.assert_array_equal(x["token_ids"], [end, *ids("abc"), end, end])
    np.testing.assert_array_equal(x["padding_mask"], [1, 1, 1, 1, 0, 0])
    prompt = preprocessor.generate_preprocess("abc")
    np.testing.assert_array_equal(prompt["token_ids"], [end, *ids("abc"), end, end])
    np.testing.assert_array_equal(prompt["padding_mask"], [1, 1, 1, 1, 0, 0])


def test_prompts_have_neither_start_nor_end_token(preprocessor, ids, byte_tokenizer):
    end = byte_tokenizer.end_token_id
    prompts = preprocessor.generate_preprocess(["ab", "abcd"], sequence_length=6)
    np.testing.assert_array_equal(
        prompts["token_ids"],
        [[*ids("ab"), end, end, end, end], [*ids("abcd"), end, end]],
    )
    np.testing.assert_array_equal(
        prompts["padding_mask"], [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    )


def test_length_of_prompts_is_the_sequence_length_unless_given(preprocessor):
    assert preprocessor.generate_preprocess("ab")["token_ids"].shape == (8,)
    preprocessor.sequence_length = 11
    assert preprocessor.generate_preprocess("ab")["token_ids"].shape == (11,)


@pytest.mark.parametrize("text", ("a\n\nb", "don't", "数"))
def test_prompts_come_back_as_text(preprocessor, text):
    prompts = preprocessor.generate_preprocess([text, "x"])
    assert preprocessor.generate_postprocess(prompts) == [text, "x"]


def test_config_round_trip(byte_tokenizer):
    preprocessor = GPTJCausalLMPreprocessor(
        byte_tokenizer, sequence_length=9, add_start_token=True, add_end_token=False
    )
    copy = keras.layers.deserialize(keras.layers.serialize(preprocessor))
    assert type(copy) is GPTJCausalLMPreprocessor
    assert copy.sequence_length == 9
    assert copy.add_start_token is True
    assert copy.add_end_token is False


def test_preset_round_trip(make_model, preprocessor, tmp_path):
    make_model().backbone.save_to_preset(str(tmp_path))  # a preset needs one
    preprocessor.save_to_preset(str(tmp_path))
    copy = GPTJCausalLMPreprocessor.from_preset(str(tmp_path))
    assert copy.get_config() == preprocessor.get_config()
    np.testing.assert_array_equal(
        copy.generate_preprocess("abc")["token_ids"],
        preprocessor.generate_preprocess("abc")["token_ids"],
    )
