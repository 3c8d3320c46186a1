"""transformers: `generate` and training of `GPTJForCausalLM` in PyTorch.

Import it before Keras: Triton crashes if it is imported after TensorFlow.
"""

import copy

import numpy as np
import torch
from transformers import GPTJConfig, GPTJForCausalLM

from benchmarks.countdown import LONGEST_COMPLETION
from benchmarks.peers import batches


def make_sampler(model, prefix, questions, batch_size, *, reuse_prefix=False):
    """Greedy `generate` of left-padded batches.

    Args:
        model: A `GPTJCausalLM`, whose weights are copied.
        prefix: Token ids of the shared prefix.
        questions: Token ids of each question.
        batch_size: Questions a batch.
        reuse_prefix: Whether the prefix is computed once, and its cache copied
            for each row.
    """
    peer = to_transformers(model)

    @torch.inference_mode()
    def prefill():
        return peer(torch.tensor([prefix]), use_cache=True).past_key_values

    @torch.inference_mode()
    def decode(batch, shared):
        longest = max(len(questions[i]) for i in batch)
        token_ids, mask = [], []
        for i in batch:
            pad = longest - len(questions[i])
            # Padding may also stand between the prefix and the question.
            if reuse_prefix:
                token_ids.append(prefix + [0] * pad + questions[i])
                mask.append([1] * len(prefix) + [0] * pad + [1] * len(questions[i]))
            else:
                token_ids.append([0] * pad + prefix + questions[i])
                mask.append([0] * pad + [1] * len(prefix + questions[i]))
        arguments = {}
        if reuse_prefix:
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(batch))
            arguments["past_key_values"] = cache
        output = peer.generate(
            torch.tensor(token_ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=LONGEST_COMPLETION,
            **arguments,
        )
        done = []
        for row, i in enumerate(batch):
            new = output[row, len(token_ids[0]) :].tolist()
            done.append((i, new[: new.index(0) + 1]))
        return done

    def sample(count):
        shared = prefill() if reuse_prefix else None
        for batch in batches(questions, count, batch_size):
            yield decode(batch, shared)

    return sample


def to_transformers(model):
    """A `GPTJForCausalLM` with the weights of a `GPTJCausalLM`."""
    backbone = model.backbone
    width = backbone.hidden_dim
    peer = GPTJForCausalLM(
        GPTJConfig(
            vocab_size=backbone.vocabulary_size,
            n_positions=backbone.max_sequence_length,
            n_embd=width,
            n_layer=backbone.num_layers,
            n_head=backbone.num_heads,
            rotary_dim=backbone.rotary_dim,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
    ).eval()
    state = {}

    def add(name, array, transpose=False):
        array = np.asarray(array)
        state[name] = torch.tensor(array.T if transpose else array)

    def add_layer(name, layer):
        scale = layer.gamma if hasattr(layer, "gamma") else layer.kernel
        add(f"{name}.weight", scale, transpose=scale.ndim == 2)
        add(f"{name}.bias", layer.beta if hasattr(layer, "beta") else layer.bias)

    add("transformer.wte.weight", backbone.token_embedding.embeddings)
    for i, layer in enumerate(backbone.transformer_layers):
        name, attention = f"transformer.h.{i}", layer.self_attention
        add_layer(f"{name}.ln_1", layer.layer_norm)
        for letter, projection in (
            ("q", attention.query),
            ("k", attention.key),
            ("v", attention.value),
        ):
            kernel = np.asarray(projection.kernel).reshape(width, width)
            add(f"{name}.attn.{letter}_proj.weight", kernel, transpose=True)
        kernel = np.asarray(attention.attention_output.kernel).reshape(width, width)
        add(f"{name}.attn.out_proj.weight", kernel, transpose=True)
        add_layer(f"{name}.mlp.fc_in", layer.feedforward_intermediate_dense)
        add_layer(f"{name}.mlp.fc_out", layer.feedforward_output_dense)
    add_layer("transformer.ln_f", backbone.layer_norm)
    add_layer("lm_head", model.lm_head)
    peer.load_state_dict(state, strict=True)
    return peer


def make_trainer(size, tokens, steps):
    """Steps of AdamW without weight decay."""
    model = GPTJForCausalLM(
        GPTJConfig(
            vocab_size=size.vocabulary_size,
            n_positions=2048,
            n_embd=size.hidden_dim,
            n_layer=size.num_layers,
            n_head=size.num_heads,
            rotary_dim=size.rotary_dim,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
            use_cache=False,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    tokens = torch.tensor(tokens, dtype=torch.long)

    def step():
        for _ in range(steps):
            model(input_ids=tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
