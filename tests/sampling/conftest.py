"""Models, requests and plain loops that the samplers are tested with."""

import random

import jax
import keras
import numpy as np
import pytest
from keras_hub.models import GPT2Backbone, GPT2CausalLM, GPT2CausalLMPreprocessor
from keras_hub.tokenizers import GPT2Tokenizer

from star_keras import testing
from star_keras.sampling import SampleRequest


@pytest.fixture(scope="session")
def gpt2(byte_tokenizer):
    """A small model of KerasHub, with GPT-2's learned positions."""
    keras.utils.set_random_seed(0)
    backbone = GPT2Backbone(
        vocabulary_size=258,
        num_layers=1,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=256,
    )
    # The stock initializer makes all logits alike.
    for variable in backbone.trainable_variables:
        variable.assign(5 * variable.value)
    tokens = byte_tokenizer.get_vocabulary()
    tokenizer = GPT2Tokenizer(
        vocabulary={token: byte_tokenizer.token_to_id(token) for token in tokens},
        merges=byte_tokenizer.merges,
    )
    return GPT2CausalLM(
        backbone, GPT2CausalLMPreprocessor(tokenizer, add_start_token=False)
    )


@pytest.fixture(scope="module")
def gpt_j(byte_tokenizer):
    """A GPT-J of one layer, shared by the tests of a module.

    It ends about one completion in two before its 24th token.
    """
    model = testing.tiny_gpt_j(tokenizer=byte_tokenizer, num_layers=1)
    end = model.preprocessor.tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(np.arange(258) == end, 1.5, 0.0))
    return model


@pytest.fixture(scope="session")
def prompts():
    """64 prompts of 2 to 41 tokens."""
    generator = random.Random(0)
    return [
        "".join(generator.choices("abcxyz 0123?\n", k=generator.randint(1, 40))) + ":"
        for _ in range(64)
    ]


@pytest.fixture(scope="session")
def requests():
    """Makes requests of prompts behind a prefix, each with a seed of its own."""

    def make(prompts, prefix=""):
        return [
            SampleRequest(
                prompt=prefix + p, name=f"problem {i}", seed=(1, i), prefix=prefix
            )
            for i, p in enumerate(prompts)
        ]

    return make


@pytest.fixture(scope="session")
def run():
    """Samples requests; the completions come in the order of the requests."""

    def run(sampler, requests, stop=()):
        done = {}
        for batch in sampler.sample(requests, stop=stop):
            assert not done.keys() & dict(batch).keys()
            done.update(batch)
        assert sorted(done) == list(range(len(requests)))
        return [done[i] for i in range(len(requests))]

    return run


@pytest.fixture(scope="session")
def plain_greedy():
    """The next token of the whole sequence, again and again, without a cache."""

    def plain_greedy(model, prompts, max_new_tokens, length=96):
        tokenizer = model.preprocessor.tokenizer
        values = [
            [v.value for v in group]
            for group in (model.trainable_variables, model.non_trainable_variables)
        ]

        @jax.jit
        def next_tokens(token_ids, lengths):
            mask = np.arange(length) < lengths[:, None]
            inputs = {"token_ids": token_ids, "padding_mask": mask.astype("int32")}
            logits = model.stateless_call(*values, inputs)[0]
            return logits[np.arange(len(prompts)), lengths - 1].argmax(-1)

        rows = [list(tokenizer(prompt)) for prompt in prompts]
        lengths = np.array([len(row) for row in rows])
        token_ids = np.zeros((len(rows), length), "int32")
        for i, row in enumerate(rows):
            token_ids[i, : len(row)] = row
        for step in range(max_new_tokens):
            token_ids[np.arange(len(rows)), lengths + step] = next_tokens(
                token_ids, lengths + step
            )
        texts = []
        for row, start in zip(token_ids, lengths, strict=True):
            new = row[start : start + max_new_tokens].tolist()
            if tokenizer.end_token_id in new:
                new = new[: new.index(tokenizer.end_token_id)]
            texts.append(tokenizer.detokenize(new) if new else "")
        return texts

    return plain_greedy
