"""transformers: `generate` and training steps in PyTorch."""

import copy

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers import LONGEST_COMPLETION, batches


def make_sampler(directory, prefix, questions, batch_size, *, reuse_prefix=False):
    """Greedy `generate` of left-padded batches.

    Args:
        directory: A directory of transformers.
        prefix: Token ids of the shared prefix.
        questions: Token ids of each question.
        batch_size: Questions a batch.
        reuse_prefix: Whether the prefix is computed once, and its cache copied
            for each row.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32").eval()

    @torch.inference_mode()
    def prefill():
        return model(torch.tensor([prefix]), use_cache=True).past_key_values

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
        output = model.generate(
            torch.tensor(token_ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=LONGEST_COMPLETION,
            eos_token_id=0,
            pad_token_id=0,
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


def make_trainer(directory, tokens, steps):
    """A function that makes `steps` steps of AdamW without weight decay.

    Args:
        directory: A directory of transformers.
        tokens: Token ids, `(batch_size, sequence_length)`.
        steps: Number of steps.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32").train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    tokens = torch.tensor(tokens, dtype=torch.long)

    def step():
        for _ in range(steps):
            model(input_ids=tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
