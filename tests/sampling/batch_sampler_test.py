import jax
import keras
import numpy as np
import pytest
from jax import numpy as jnp
from keras_hub.models import GPT2Backbone, GPT2CausalLM, GPT2CausalLMPreprocessor
from keras_hub.tokenizers import GPT2Tokenizer
from tokenizers import pre_tokenizers

from star_keras.sampling import BatchSampler, SampleRequest

PROMPTS = [
    "Q: hi",
    "a",
    "the longest prompt of them all, by far: 0123456789",
    "Q: what\nA:",
    "x y z",
    "twenty bytes of text",
    "ab",
]


@pytest.fixture(scope="module")
def gpt2():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["<|endoftext|>", *alphabet, "qz"])}
    keras.utils.set_random_seed(0)
    backbone = GPT2Backbone(
        vocabulary_size=258,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=256,
    )
    # The stock initializer makes all logits alike.
    for variable in backbone.trainable_variables:
        variable.assign(5 * variable.value)
    tokenizer = GPT2Tokenizer(vocabulary=vocabulary, merges=["q z"])
    return GPT2CausalLM(
        backbone, GPT2CausalLMPreprocessor(tokenizer, add_start_token=False)
    )


def requests(prompts=PROMPTS):
    return [
        SampleRequest(prompt=p, name=f"problem {i}", seed=(1, i))
        for i, p in enumerate(prompts)
    ]


def run(sampler, prompts=PROMPTS, stop=()):
    done = {}
    for batch in sampler.sample(requests(prompts), stop=stop):
        done.update(batch)
    assert sorted(done) == list(range(len(prompts)))
    return [done[i] for i in range(len(prompts))]


def plain_greedy(model, prompts, max_new_tokens, length=96):
    """The next token of the whole sequence, again and again, without a cache."""
    tokenizer = model.preprocessor.tokenizer
    values = [
        [v.value for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]

    @jax.jit
    def logits(token_ids, padding_mask):
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return model.stateless_call(*values, inputs)[0]

    texts = []
    for prompt in prompts:
        ids = list(tokenizer(prompt))
        new = []
        while len(new) < max_new_tokens:
            row = np.zeros((1, length), "int32")
            row[0, : len(ids)] = ids
            mask = (np.arange(length) < len(ids))[None].astype("int32")
            token = int(np.argmax(logits(row, mask)[0, len(ids) - 1]))
            if token == tokenizer.end_token_id:
                break
            ids.append(token)
            new.append(token)
        texts.append(tokenizer.detokenize(new) if new else "")
    return texts


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_equals_a_plain_uncached_loop(make_model, batch_size):
    model = make_model()
    completions = run(BatchSampler(model, max_new_tokens=20, batch_size=batch_size))
    assert [c.text for c in completions] == plain_greedy(model, PROMPTS, 20)


def test_other_models_equal_the_plain_loop(gpt2):
    completions = run(BatchSampler(gpt2, max_new_tokens=20, batch_size=3))
    texts = [c.text for c in completions]
    assert texts == plain_greedy(gpt2, PROMPTS, 20)
    assert len(set(texts)) > 3


def test_samples_do_not_depend_on_the_batch_or_the_order(make_model):
    model = make_model()
    sizes = {"max_new_tokens": 20, "temperature": 1.0, "seed": 5}
    expected = run(BatchSampler(model, batch_size=7, **sizes))
    assert run(BatchSampler(model, batch_size=2, **sizes)) == expected
    sampler = BatchSampler(model, batch_size=4, **sizes)
    done = {}
    for batch in sampler.sample(requests()[::-1]):
        done.update(batch)
    assert [done[len(PROMPTS) - 1 - i] for i in range(len(PROMPTS))] == expected
    other = BatchSampler(model, batch_size=7, **{**sizes, "seed": 6})
    assert run(other) != expected


def test_top_1_sampling_equals_greedy(make_model):
    model = make_model()
    greedy = run(BatchSampler(model, max_new_tokens=20))
    assert run(BatchSampler(model, max_new_tokens=20, temperature=1, top_k=1)) == greedy
    tiny = BatchSampler(model, max_new_tokens=20, temperature=1, top_p=1e-6)
    assert run(tiny) == greedy


def test_top_k_and_top_p_sample_only_the_likeliest(make_model):
    model = make_model()
    logits = jnp.tile(jnp.log(jnp.array([0.05, 0.5, 0.3, 0.15])), (400, 1))
    keys = jax.random.split(jax.random.key(0), 400)

    def drawn(**kwargs):
        sampler = BatchSampler(model, max_new_tokens=1, temperature=1, **kwargs)
        return set(sampler._next_token(logits, keys, jnp.arange(400)).tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {1, 2}
    assert drawn(top_p=0.79) == {1, 2}
    assert drawn(top_p=0.81) == {1, 2, 3}
    assert drawn(top_k=3, top_p=0.4) == {1}


def test_stop_strings_end_a_completion_exactly(make_model):
    model = make_model()
    free = run(BatchSampler(model, max_new_tokens=40))
    # Two bytes from the middle of a completion stop just that.
    text = free[0].text
    stop = text[7:9]
    completions = run(BatchSampler(model, max_new_tokens=40), stop=[stop])
    assert completions[0].text == text[: text.index(stop)]
    assert completions[0].finish_reason == "stop"
    for before, after in zip(free, completions, strict=True):
        assert stop not in after.text
        assert before.text.startswith(after.text)


def test_length_ends_what_does_not_stop(make_model):
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    model.lm_head.bias.assign(np.where(np.arange(258) == end, -1e9, 0.0))
    (completion,) = run(BatchSampler(model, max_new_tokens=5), ["abc"])
    assert completion.finish_reason == "length"
    assert completion.num_tokens == 5


def test_too_long_prompt_is_named_and_nothing_is_sampled(make_model):
    sampler = BatchSampler(make_model(max_sequence_length=32), max_new_tokens=20)
    stream = sampler.sample(requests(["short", "much too long a prompt"]))
    with pytest.raises(ValueError, match="'problem 1' has 22 tokens.*42.* 32 of the"):
        next(stream)


@pytest.mark.parametrize(
    "argument",
    [
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_k": 5},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_bad_arguments_are_named(make_model, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`.*Received: .*{name}="):
        BatchSampler(make_model(), **{"max_new_tokens": 8, **argument})
