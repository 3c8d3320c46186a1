"""KerasHub: `CausalLM.generate`, and `fit` of GPT-NeoX."""

import star_keras  # noqa: F401  isort: skip  (selects the backend)
import keras
import numpy as np
import tensorflow as tf
from keras_hub.models import GPTNeoXBackbone, GPTNeoXCausalLM

from benchmarks.countdown import LONGEST_COMPLETION, LONGEST_QUESTION
from benchmarks.models import adam
from benchmarks.peers import batches


def make_sampler(model, prefix, questions, batch_size):
    """Greedy `generate` of a `GPTJCausalLM`, whose preprocessor is removed."""
    model.preprocessor = None  # token ids in, token ids out
    model.compile(sampler="greedy")
    length = len(prefix) + LONGEST_QUESTION + LONGEST_COMPLETION

    def sample(count):
        for batch in batches(questions, count, batch_size):
            prompts = [prefix + questions[i] for i in batch]
            token_ids = np.zeros((len(batch), length), "int32")
            mask = np.zeros((len(batch), length), "int32")
            for row, prompt in enumerate(prompts):
                token_ids[row, : len(prompt)] = prompt
                mask[row, : len(prompt)] = 1
            output = model.generate(
                {"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=[0]
            )
            done = []
            for i, prompt, ids in zip(batch, prompts, output["token_ids"], strict=True):
                new = np.asarray(ids)[len(prompt) :].tolist()
                done.append((i, new[: new.index(0) + 1]))
            yield done

    return sample


def make_trainer(size, tokens, steps):
    """`fit` of GPT-NeoX, KerasHub's nearest model to GPT-J.

    It has parallel blocks, rotary positions and an untied head.
    """
    backbone = GPTNeoXBackbone(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=4 * size.hidden_dim,
        max_sequence_length=2048,
    )
    model = GPTNeoXCausalLM(backbone)
    model.compile(
        adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
    )
    x = {"token_ids": tokens, "padding_mask": np.ones(tokens.shape, "int32")}
    y = np.roll(tokens, -1, 1)
    # As fast as from arrays, which `fit` turns into a dataset, but without
    # autotuning: with it the end of `fit` sometimes waits for seconds, see
    # `star_keras.training.dataset.training_dataset`.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
    dataset = dataset.prefetch(2).with_options(options)
    return lambda: model.fit(dataset, verbose=0, shuffle=False)
