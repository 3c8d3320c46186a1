"""KerasHub causal LMs as a model of EleutherAI's lm-evaluation-harness.

    python -m star_keras.lm_eval_model --model star_keras \\
        --model_args pretrained=runs/cqa/preset --batch_size 16 --tasks piqa

is lm_eval's own command line with one more `--model`. lm_eval finds models by
import only, so its `lm_eval` command does not know this one.

Reference: https://github.com/EleutherAI/lm-evaluation-harness
"""

import functools

import jax
import keras
import numpy as np
from jax import numpy as jnp
from lm_eval import utils
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from star_keras import distribution
from star_keras.models import load_causal_lm
from star_keras.sampling import SampleRequest, get_sampler

# Rows are scored at few lengths, the shortest this.
_SHORTEST = 16


def load_model(pretrained, *, dtype=None, mesh=None):
    """The causal LM of a preset, over a mesh.

    Args:
        pretrained: See `star_keras.models.load_causal_lm`.
        dtype: E.g. `"bfloat16"`. Defaults to the preset's.
        mesh: E.g. `"batch:2,model:4"`. Defaults to one device.

    Returns:
        A `keras_hub.models.CausalLM`.
    """
    if mesh is not None:
        keras.distribution.set_distribution(distribution.model_parallel(mesh))
    return load_causal_lm(pretrained, dtype=dtype)


@register_model("star_keras")
class StarKerasLM(TemplateLM):
    """A KerasHub causal LM that lm_eval can evaluate.

    Texts are encoded, cut to length and scored as lm_eval's adapter of
    transformers (`--model hf`) does, so their figures can be compared. Chat
    templates are not supported.

    Args:
        pretrained: What `load_model` takes, or a `keras_hub.models.CausalLM`
            with a preprocessor.
        batch_size: int. Rows scored or decoded together. Defaults to `1`, like
            lm_eval's `--batch_size`, which the command line always passes.
        max_length: int. Longest input in tokens; longer ones lose their
            beginning. Defaults to the model's longest.
        dtype: See `load_model`.
        mesh: See `load_model`. `batch_size` must be divisible by its batch
            axis.
        device: Ignored: lm_eval's command line always passes a device of torch,
            and JAX has its own.

    Example:
    ```python
    lm_eval.simple_evaluate(StarKerasLM(model, batch_size=8), tasks=["piqa"])
    ```
    """

    # What lm_eval's other models generate where a task does not say.
    max_gen_toks = 256

    def __init__(
        self,
        pretrained,
        *,
        batch_size=1,
        max_length=None,
        dtype=None,
        mesh=None,
        device=None,
    ):
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(
                "Invalid value for argument `batch_size`. Expected at least 1; "
                f'"auto" is not supported. Received: batch_size={batch_size}.'
            )
        self.batch_size = int(batch_size)
        rows = 1 if mesh is None else distribution.parse_mesh(mesh)["batch"]
        if self.batch_size % rows:
            raise ValueError(
                "Invalid value for argument `batch_size`. Expected a multiple of "
                f"{rows}, the batch axis of mesh={mesh!r}. "
                f"Received: batch_size={batch_size}."
            )
        if not isinstance(pretrained, keras.Model):
            model = load_model(pretrained, dtype=dtype, mesh=mesh)
        elif dtype is None and mesh is None:
            model = pretrained
        else:
            raise ValueError(
                "Invalid value for arguments `dtype` and `mesh`. Expected `None` "
                "when `pretrained` is a model, which has its own. Received: "
                f"dtype={dtype}, mesh={mesh}."
            )
        if model.preprocessor is None:
            raise ValueError(
                "Invalid value for argument `pretrained`. Expected a causal LM with "
                f"a preprocessor. Received: pretrained={pretrained}, without one."
            )
        self.model = model
        self.tokenizer = model.preprocessor.tokenizer
        limit = getattr(model.backbone, "max_sequence_length", None)
        self.max_length = max_length or limit or model.preprocessor.sequence_length
        if self.max_length < 1 or (limit and self.max_length > limit):
            raise ValueError(
                "Invalid value for argument `max_length`. Expected at least 1, and at "
                f"most {limit}, the model's `max_sequence_length`. "
                f"Received: max_length={max_length}."
            )
        self._score = jax.jit(self._score_batch)

    # === Tokens ===

    @property
    def eot_token_id(self):
        return self.tokenizer.end_token_id

    @property
    def prefix_token_id(self):
        start = self.tokenizer.start_token_id
        return self.eot_token_id if start is None else start

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        """Token ids of a text.

        Args:
            string: The text.
            add_special_tokens: Whether to put a start token before it. Defaults
                to the preprocessor's habit, never before another start token.

        Returns:
            A list of ints.
        """
        ids = self.tokenizer(string).tolist()
        start = [self.tokenizer.start_token_id]
        if add_special_tokens is None:
            add = self.model.preprocessor.add_start_token and ids[:1] != start
        else:
            add = add_special_tokens
        return start + ids if add else ids

    # === Log-likelihoods ===

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
        """Log-likelihoods of continuations.

        Args:
            requests: Triples of what the cache calls it (or `None`), token ids
                of the context and of the continuation.
            disable_tqdm: Whether to show no progress.

        Returns:
            Pairs, in the order of the requests: the log-likelihood, and whether
            the continuation is what greedy decoding would write.

        Raises:
            ValueError: if a continuation is empty or longer than `max_length`.
        """
        rows = []
        for name, context, continuation in requests:
            if not 1 <= len(continuation) <= self.max_length:
                raise ValueError(
                    f"Expected continuations of 1 to max_length={self.max_length} "
                    f"tokens. Received: {len(continuation)} tokens, of {name!r}."
                )
            tokens = (context + continuation)[-(self.max_length + 1) :]
            rows.append((tokens[:-1], continuation))
        variables = (
            [v.value for v in self.model.trainable_variables],
            [v.value for v in self.model.non_trainable_variables],
        )
        # The longest first: what does not fit into memory fails at once.
        order = sorted(range(len(rows)), key=lambda i: [-len(x) for x in rows[i]])
        answers = [None] * len(rows)
        progress = tqdm(total=len(rows), desc="Log-likelihoods", disable=disable_tqdm)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            scores = self._score(variables, *self._pad([rows[i] for i in batch]))
            scores = map(np.asarray, scores)
            for i, log_likelihood, greedy in zip(batch, *scores, strict=False):
                answers[i] = (float(log_likelihood), bool(greedy))
                name = requests[i][0]
                if name is not None:
                    self.cache_hook.add_partial("loglikelihood", name, answers[i])
            progress.update(len(batch))
        progress.close()
        return answers

    def _pad(self, rows):
        """Arrays of `_score_batch` from pairs `(inputs, continuation)`."""
        longest = max(len(inputs) for inputs, _ in rows)
        most = max(len(continuation) for _, continuation in rows)
        length = min(_bucket(longest), self.max_length)
        shape = (self.batch_size, length)
        token_ids = np.zeros(shape, "int32")
        padding_mask = np.zeros(shape, "int32")
        shape = (self.batch_size, min(_bucket(most), length))
        positions = np.zeros(shape, "int32")
        targets = np.zeros(shape, "int32")
        counted = np.zeros(shape, "bool")
        # A short batch is filled up with copies of its first row.
        rows = rows + rows[:1] * (self.batch_size - len(rows))
        for row, (inputs, continuation) in enumerate(rows):
            token_ids[row, : len(inputs)] = inputs
            padding_mask[row, : len(inputs)] = 1
            count = len(continuation)
            positions[row, :count] = np.arange(len(inputs) - count, len(inputs))
            targets[row, :count] = continuation
            counted[row, :count] = True
        arrays = token_ids, padding_mask, positions, targets, counted
        devices = keras.distribution.distribution()
        if devices is None:
            return arrays
        return [
            keras.distribution.distribute_tensor(a, devices.get_data_layout(a.shape))
            for a in arrays
        ]

    def _score_batch(
        self, variables, token_ids, padding_mask, positions, targets, counted
    ):
        """Log-likelihoods of a batch.

        Args:
            variables: Values of the model's trainable and other variables.
            token_ids: int32 `(batch, length)`, padded right.
            padding_mask: int32 `(batch, length)`.
            positions: int32 `(batch, count)`. Where the logits of each token of
                the continuation are.
            targets: int32 `(batch, count)`. Tokens of the continuation.
            counted: bool `(batch, count)`, false at padding.

        Returns:
            Float32 `(batch,)` log-likelihoods, and bool `(batch,)`, whether
            greedy decoding writes the continuation.
        """
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        logits, _ = self.model.stateless_call(*variables, inputs, training=False)
        # (batch, count, vocabulary)
        logits = jnp.take_along_axis(logits, positions[:, :, None], axis=1)
        log_probs = jax.nn.log_softmax(logits.astype("float32"))
        chosen = jnp.take_along_axis(log_probs, targets[:, :, None], axis=2)[:, :, 0]
        greedy = jnp.argmax(log_probs, axis=-1) == targets
        return (
            jnp.sum(jnp.where(counted, chosen, 0), axis=1),
            jnp.all(greedy | ~counted, axis=1),
        )

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Log-likelihoods of whole texts, each behind the prefix token.

        A text longer than `max_length` is cut into windows. The first token of
        each is scored after one token of context; the last window is filled up
        with as much context as fits.

        Args:
            requests: `Instance`s whose `args` are `(text,)`.
            disable_tqdm: Whether to show no progress.

        Returns:
            A list of floats.
        """
        windows, owners = [], []
        for i, request in enumerate(requests):
            (text,) = request.args
            for window in utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(i)
        totals = [0.0] * len(requests)
        answers = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for i, (log_likelihood, _) in zip(owners, answers, strict=True):
            totals[i] += log_likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # === Generation ===

    def generate_until(self, requests, disable_tqdm=False):
        """Completions of prompts.

        Args:
            requests: `Instance`s whose `args` are `(prompt, settings)`. Settings
                may be `until` (stop strings), `max_gen_toks`, `do_sample`,
                `temperature`, `top_k` and `top_p`. Prompts lose their beginning
                where they would leave no room for `max_gen_toks`.
            disable_tqdm: Whether to show no progress.

        Returns:
            A list of texts, without their stop strings.

        Raises:
            ValueError: for other settings, or if `max_gen_toks` is not below
                `max_length`.
        """
        samplers = functools.cache(
            functools.partial(get_sampler, self.model, batch_size=self.batch_size)
        )
        groups = {}
        for i, request in enumerate(requests):
            prompt, settings = request.args
            stop, arguments = self._sampling_arguments(settings)
            sampler = samplers(**arguments)
            room = self.max_length - sampler.max_new_tokens
            ids = (self.tok_encode(prompt) or [self.prefix_token_id])[-room:]
            sample_request = SampleRequest(
                prompt=tuple(ids), name=f"request {i}", seed=(i,)
            )
            groups.setdefault((sampler, stop), []).append((i, sample_request))
        texts = [None] * len(requests)
        progress = tqdm(total=len(requests), desc="Completions", disable=disable_tqdm)
        for (sampler, stop), group in groups.items():
            numbers, sample_requests = zip(*group, strict=True)
            for batch in sampler.sample(sample_requests, stop=stop):
                for at, completion in batch:
                    i = numbers[at]
                    texts[i] = completion.text
                    self.cache_hook.add_partial(
                        "generate_until", requests[i].args, texts[i]
                    )
                progress.update(len(batch))
        progress.close()
        return texts

    def _sampling_arguments(self, settings):
        """Stop strings, and arguments of `get_sampler`."""
        rest = dict(normalize_gen_kwargs(settings, self.max_gen_toks))
        stop = tuple(s for s in rest.pop("until") if s)
        max_new_tokens = rest.pop("max_gen_toks")
        do_sample = rest.pop("do_sample")
        temperature = float(rest.pop("temperature", 0))
        choices = {name: rest.pop(name, None) for name in ("top_k", "top_p")}
        if rest:
            raise ValueError(
                f"Invalid generation settings {sorted(rest)}. Expected `until`, "
                "`max_gen_toks`, `do_sample`, `temperature`, `top_k` and `top_p` "
                f"only. Received: {settings}."
            )
        if do_sample and temperature <= 0:
            raise ValueError(
                "Invalid generation setting `temperature`. Expected more than 0 "
                f"when do_sample is true. Received: {settings}."
            )
        if not 1 <= max_new_tokens < self.max_length:
            raise ValueError(
                "Invalid generation setting `max_gen_toks`. Expected at least 1 and "
                f"less than max_length={self.max_length}. "
                f"Received: max_gen_toks={max_new_tokens}."
            )
        if not do_sample:
            return stop, {"max_new_tokens": max_new_tokens}
        choices |= {"max_new_tokens": max_new_tokens, "temperature": temperature}
        return stop, choices


def _bucket(length):
    """The length, rounded up to one of two or so for each power of two."""
    step = max(_SHORTEST, 1 << max((length - 1).bit_length() - 2, 0))
    return -(-length // step) * step


if __name__ == "__main__":
    cli_evaluate()
