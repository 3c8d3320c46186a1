"""Models of KerasHub other than GPT-J through the outer loop."""

import io
import itertools

import keras
import pytest
import sentencepiece
from keras_hub import models as hub
from keras_hub import tokenizers as hub_tokenizers
from tokenizers import pre_tokenizers

from star_keras.config import OptimizerConfig
from star_keras.models import PackedCausalLM, load_causal_lm, packed_causal_lm
from star_keras.sampling import BatchSampler, ContinuousSampler
from star_keras.training import compile_model
from tests.callbacks.conftest import fit, samples, weights
from tests.conftest import ROOT


def sentencepiece_proto(bos, eos):
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=itertools.repeat(
            "Q: What is twice 12? A: The answer is 3.", 9
        ),
        model_writer=content,
        vocab_size=300,
        model_type="BPE",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece=bos,
        eos_piece=eos,
        minloglevel=2,
    )
    return content.getvalue()


def make_llama():
    proto = sentencepiece_proto("<s>", "</s>")
    backbone = hub.LlamaBackbone(
        vocabulary_size=300,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
    )
    preprocessor = hub.LlamaCausalLMPreprocessor(hub_tokenizers.LlamaTokenizer(proto))
    return hub.LlamaCausalLM(backbone, preprocessor)


def make_gpt2():
    backbone = hub.GPT2Backbone(
        vocabulary_size=258,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=256,
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet, "qz"]
    tokenizer = hub_tokenizers.GPT2Tokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"]
    )
    preprocessor = hub.GPT2CausalLMPreprocessor(tokenizer)
    return packed_causal_lm(hub.GPT2CausalLM(backbone, preprocessor))


def make_hugging_face_qwen():
    """Without a start token, and with padding that is not the end token."""
    directory = ROOT / "tests" / "fixtures" / "hugging_face" / "qwen2"
    return load_causal_lm(directory)


# GPT-2's dropout is 0.1.
@pytest.mark.filterwarnings("ignore:GPT2CausalLM has dropout=0.1")
@pytest.mark.slow
@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_hugging_face_qwen])
def test_other_keras_hub_models_go_through_two_iterations(make_star, make):
    keras.utils.set_random_seed(0)
    model = make()
    compile_model(model, OptimizerConfig(learning_rate=1e-3, warmup_steps=0))
    base = weights(model)
    # What the model itself samples is graded, and trained on where right ...
    is_packed = isinstance(model, PackedCausalLM)
    sampler = ContinuousSampler if is_packed else BatchSampler
    star = make_star("own", model, sampler=sampler(model, max_new_tokens=8))
    fit(star, 2)
    assert len(samples(star, 2)) == 24
    assert len(samples(star, 2, "evaluation")) == 6
    # ... and a model that knows something is trained on what it knows.
    compile_model(model, OptimizerConfig(learning_rate=1e-2, warmup_steps=0))
    for variable, value in zip(model.trainable_variables, base, strict=True):
        variable.assign(value)
    # From the same base, 20 steps get further down than 2.
    star = make_star("scripted", model, batch_size=3, add_steps=18)
    history = fit(star, 2).history
    assert history["num_rationales"] == [18, 18]
    assert history["loss"][1] < history["loss"][0]
    x, y, sample_weight = next(star.dataset.as_numpy_iterator())
    assert set(x) == {"token_ids", "padding_mask"} | (
        {"segment_ids", "positions"} if is_packed else set()
    )
    assert y.shape == (3, 128)
