import keras
import numpy as np
import pytest
import tensorflow as tf
import tokenizers

from star_keras.models import HuggingFaceTokenizer, load_causal_lm
from star_keras.models.hugging_face.tokenizer_files import read_tokenizer
from tests.models.hugging_face.cases import CASES, copied, expected_ids, loaded


def tokenizer(name):
    return loaded(name).preprocessor.tokenizer


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_transformers(name):
    found = tokenizer(name)(expected_ids(name)["texts"])
    assert found == expected_ids(name)["plain_ids"]


@pytest.mark.parametrize("name", CASES)
def test_the_start_token_is_added_where_transformers_adds_it(name):
    preprocessor = loaded(name).preprocessor
    start = [tokenizer(name).start_token_id] if preprocessor.add_start_token else []
    texts, ids = (expected_ids(name)[key] for key in ("texts", "ids"))
    assert [start + row for row in tokenizer(name)(texts)] == ids
    if name.startswith("gemma3"):
        return  # its preprocessor takes pairs of prompts and responses
    x = preprocessor.generate_preprocess(texts[2], sequence_length=128)
    real = np.asarray(x["token_ids"])[np.asarray(x["padding_mask"], "bool")]
    assert real.tolist() == ids[2]


@pytest.mark.parametrize("name", CASES)
def test_detokenize_is_the_inverse(name):
    texts = expected_ids(name)["texts"][:-1]  # the last has a special token amid words
    if "▁" in tokenizer(name).to_json():  # whose blanks may go, and so the one before
        texts = texts[:-1]
    rows = tokenizer(name)(texts)
    assert [tokenizer(name).detokenize(row) for row in rows] == texts
    assert tokenizer(name).detokenize(rows) == texts


@pytest.mark.parametrize(
    "name, ends, pad",
    [
        ("llama_tied", ("<|im_end|>",), "<|im_end|>"),
        ("llama_untied", ("<|eot_id|>", "<|end_of_text|>"), "<|eot_id|>"),
        ("qwen2", ("<|im_end|>", "<|endoftext|>"), "<|endoftext|>"),
        ("gemma2", ("<eos>", "<end_of_turn>"), "<pad>"),
        ("mistral", ("</s>",), "</s>"),
    ],
)
def test_all_end_tokens_are_known_and_padding_always(name, ends, pad):
    found = tokenizer(name)
    assert tuple(map(found.id_to_token, found.end_token_ids)) == ends
    assert found.end_token_id == found.end_token_ids[0]
    assert found.id_to_token(found.pad_token_id) == pad
    assert hasattr(found, "end_token2_id") == (len(ends) > 1)


def test_one_text_is_an_array_and_several_are_lists():
    ids = tokenizer("qwen2")("12 + 3")
    assert ids.dtype == "int32" and ids.ndim == 1
    assert tokenizer("qwen2")(["12 + 3"]) == [ids.tolist()]
    assert tokenizer("qwen2").detokenize(ids) == "12 + 3"
    assert tokenizer("qwen2").detokenize(int(ids[0])) == "1"
    assert tokenizer("qwen2").detokenize([]) == ""


def test_strings_of_tensorflow_are_read_outside_of_its_graphs():
    texts = ["12 + 3", "don't"]
    expected = tokenizer("qwen2")(texts)
    assert tokenizer("qwen2")(tf.constant(texts)) == expected
    assert tokenizer("qwen2")(np.array(texts)) == expected
    with pytest.raises(ValueError, match="argument `inputs`.*no graph"):
        tf.data.Dataset.from_tensor_slices(texts).map(tokenizer("qwen2"))
    with pytest.raises(ValueError, match="argument `inputs`.*list of strings"):
        tokenizer("qwen2")([3])


def test_ids_beyond_the_vocabulary_have_no_text():
    found = tokenizer("qwen2")
    size = found.vocabulary_size()
    assert loaded("qwen2").backbone.vocabulary_size == size + 4
    ids = [*found("12"), size, size + 3]
    assert found.detokenize(ids) == "12"
    with pytest.raises(ValueError, match="argument `id`"):
        found.id_to_token(size)


def test_the_vocabulary_is_a_list_by_id():
    found = tokenizer("llama_untied")
    tokens = found.get_vocabulary()
    assert len(tokens) == found.vocabulary_size()
    assert tokens[found.end_token_id] == "<|eot_id|>"
    assert found.token_to_id("<|eot_id|>") == found.end_token_id
    assert set(found.special_tokens) == {
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|eot_id|>",
    }
    with pytest.raises(ValueError, match="argument `token`.*'nothing'"):
        found.token_to_id("nothing")


def test_a_saved_tokenizer_is_the_same(tmp_path):
    found = tokenizer("llama_untied")
    found.save_to_preset(str(tmp_path))
    config = keras.saving.serialize_keras_object(found)
    again = keras.saving.deserialize_keras_object(config)
    with pytest.raises(ValueError, match="no vocabulary yet"):
        again("12")
    again.load_assets(str(tmp_path / "assets" / "tokenizer"))
    texts, ids = (expected_ids("llama_untied")[key] for key in ("texts", "plain_ids"))
    assert again(texts) == ids
    assert again.get_config() == found.get_config()
    assert again.files == found.files


def test_an_end_token_is_needed(tmp_path):
    directory = copied("qwen2", tmp_path, eos_token_id=None)
    (directory / "tokenizer_config.json").unlink()
    (directory / "generation_config.json").unlink()
    with pytest.raises(ValueError, match="names no end token"):
        load_causal_lm(directory)
    with pytest.raises(ValueError, match="argument `end_token_ids`"):
        HuggingFaceTokenizer(end_token_ids=[])


def test_ids_out_of_the_vocabulary_are_refused():
    text = tokenizer("qwen2").to_json()
    with pytest.raises(ValueError, match="argument `pad_token_id`.*ids below 300"):
        HuggingFaceTokenizer(text, end_token_ids=[0], pad_token_id=300)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    directory = copied("qwen2", tmp_path)
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    with pytest.raises(ValueError, match="'tokenizer.model'.*no tokenizer.json"):
        load_causal_lm(directory)
    (directory / "tokenizer.model").unlink()
    assert load_causal_lm(directory).preprocessor is None


@pytest.mark.parametrize("pad, expected", [(9, 9), (10, 0), (-1, 0)])
def test_the_padding_may_lie_behind_a_gap_of_the_ids(pad, expected, tmp_path):
    words = {"<end>": 0, "yes": 1, "<pad>": 9}
    model = tokenizers.models.WordLevel(words, unk_token="<end>")
    text = tokenizers.Tokenizer(model).to_str()
    (tmp_path / "tokenizer.json").write_text(text)
    config = {"eos_token_id": [0, 9, 10], "pad_token_id": pad}
    found = read_tokenizer(tmp_path, config)
    assert (found.end_token_ids, found.pad_token_id) == ((0, 9), expected)
