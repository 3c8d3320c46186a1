"""Peers: other libraries that do the same work.

Each module has `make_sampler` and one of the other two functions:

- `make_sampler(model, prefix, questions, batch_size)` returns a function
  `sample(count)`, a generator of batches: lists of `(index of a question, token
  ids of its completion)`;
- `make_trainer(size, tokens, steps)` returns a function that makes `steps`
  training steps on `tokens`, an int array `(batch_size, sequence_length)`;
- `make_trained_model(size)` returns a compiled model for `fit`.
"""


def batches(questions, count, batch_size):
    """Indices of the first `count` questions in batches, sorted by length."""
    order = sorted(range(count), key=lambda i: len(questions[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
