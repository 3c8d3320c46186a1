import pytest

from star_keras.models import GPTJCausalLMPreprocessor
from star_keras.training.examples import tokenize_examples, tokenize_prompts


@pytest.fixture
def preprocessor(byte_tokenizer):
    return GPTJCausalLMPreprocessor(byte_tokenizer)


def test_tokenizing_keeps_the_boundary_and_adds_the_end(preprocessor):
    # "qz" is one token, but not across the boundary.
    (example,) = tokenize_examples(preprocessor, [("Q: a\nA:q", "z qz", 0.5)])
    tokenizer = preprocessor.tokenizer
    assert tokenizer.detokenize(example.prompt_ids.tolist()) == "Q: a\nA:q"
    assert example.response_ids[-1] == tokenizer.end_token_id
    assert tokenizer.detokenize(example.response_ids[:-1].tolist()) == "z qz"
    assert len(example.response_ids) == 4
    assert example.weight == 0.5


@pytest.mark.parametrize("add_start_token", (False, True))
def test_start_token_is_added_where_the_preprocessor_wants_one(
    preprocessor, add_start_token
):
    preprocessor.add_start_token = add_start_token
    start = [preprocessor.tokenizer.start_token_id] if add_start_token else []
    ids = preprocessor.tokenizer("Q").tolist()
    (example,) = tokenize_examples(preprocessor, [("Q", " b", 1.0)])
    assert example.prompt_ids.tolist() == start + ids
    assert tokenize_prompts(preprocessor, ["Q", "Q"]) == 2 * [start + ids]


def test_no_texts_are_no_examples(preprocessor):
    assert tokenize_examples(preprocessor, []) == []
