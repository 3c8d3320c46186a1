"""Peers: other libraries that do the same work.

Each module has some of these functions:

- `make_sampler(model, prefix, questions, batch_size)` returns a function
  `sample(count)`, a generator of batches: lists of `(index of a question, token
  ids of its completion)`;
- `make_trainer(directory, tokens, steps)` returns a function that makes `steps`
  training steps on `tokens`, integers `(batch_size, sequence_length)`;
- `make_trained_model(size)` returns a compiled model for `fit`.

For KerasHub `model` is a model, for the others the path of a Hugging Face directory:
they run by `python -m benchmarks.peers`, in an environment of their own if need be,
and where TensorFlow is not loaded.
"""

LONGEST_QUESTION = 48
LONGEST_COMPLETION = 96


def batches(questions, count, batch_size):
    """Indices of the first `count` questions in batches, sorted by length."""
    order = sorted(range(count), key=lambda i: len(questions[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
