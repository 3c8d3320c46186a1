"""KerasHub: `CausalLM.generate`, and the models of `fit`."""

import star_keras  # noqa: F401  isort: skip  (selects the backend)
import keras
import numpy as np
from keras_hub.models import GPTNeoXBackbone, GPTNeoXCausalLM

from benchmarks.models import LlamaSize, adam
from benchmarks.peers import LONGEST_COMPLETION, LONGEST_QUESTION, batches


def make_sampler(model, prefix, questions, batch_size):
    """Greedy `generate` of a causal LM, whose preprocessor is removed."""
    model.preprocessor = None  # token ids in, token ids out
    model.compile(sampler="greedy")
    length = len(prefix) + LONGEST_QUESTION + LONGEST_COMPLETION

    def sample(count):
        for batch in batches(questions, count, batch_size):
            prompts = [prefix + questions[i] for i in batch]
            # Padding is no end token: else `generate` of stock models ends at once.
            token_ids = np.ones((len(batch), length), "int32")
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


def make_trained_model(size):
    """A stock model for `fit`, with a loss that needs the logits of all tokens.

    It is Llama, or GPT-NeoX instead of GPT-J: it has parallel blocks, rotary
    positions and an untied head as well.
    """
    if isinstance(size, LlamaSize):
        model = size.make_model()
    else:
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
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=[],
    )
    return model
