"""KerasHub causal LMs as a model of EleutherAI's lm-evaluation-harness.

    python -m star_keras.integrations.lm_eval_model --model star_keras \\
        --model_args pretrained=runs/cqa/preset --batch_size 16 --tasks piqa

is lm_eval's own command line with one more `--model`. lm_eval finds models by
import only, so its own `lm_eval` command does not know this model.

Reference: https://github.com/EleutherAI/lm-evaluation-harness
"""

import functools

import keras
from lm_eval import utils
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from star_keras import distribution
from star_keras.models import load_causal_lm
from star_keras.sampling import SampleRequest, Scorer, ScoreRequest, get_sampler
from star_keras.utils.errors import invalid


def load_model(pretrained, *, dtype=None, mesh=None):
    """The causal LM of a preset, over a mesh.

    Args:
        pretrained: See `star_keras.models.load_causal_lm`.
        dtype: E.g. `"bfloat16"`. Defaults to the dtype of the preset.
        mesh: E.g. `"batch:2,model:4"`. Defaults to one device.

    Returns:
        A `keras_hub.models.CausalLM`.

    Raises:
        ValueError: if there is no such preset, its weights do not fit, or the
            mesh is invalid.
        FileNotFoundError: if the preset lacks a file.
    """
    if mesh is not None:
        keras.distribution.set_distribution(distribution.model_parallel(mesh))
    return load_causal_lm(pretrained, dtype=dtype)


@register_model("star_keras")
class StarKerasLM(TemplateLM):
    """A KerasHub causal LM that lm_eval can evaluate.

    Texts are encoded, cut to length and scored like in lm_eval's adapter of
    transformers (`--model hf`), so that the metrics of both can be compared.
    Chat templates are not supported.

    Args:
        pretrained: A preset, see `load_model`, or a `keras_hub.models.CausalLM`
            with a preprocessor.
        batch_size: int. Rows scored or decoded together. Defaults to `1`, like
            lm_eval's `--batch_size`, which the command line always passes.
        max_length: int. Longest input in tokens; longer inputs lose their
            beginning. Defaults to the longest input of the model.
        dtype: See `load_model`.
        mesh: See `load_model`. `batch_size` must be divisible by its batch
            axis.
        device: Ignored: lm_eval's command line always passes a device of torch,
            and JAX has its own.

    Raises:
        ValueError: if an argument is invalid, `dtype` or `mesh` is given with a
            model, the model has no preprocessor, or as for `load_model`.
        FileNotFoundError: if the preset lacks a file.

    Example:
    ```
    lm_eval.simple_evaluate(StarKerasLM(model, batch_size=8), tasks=["piqa"])
    ```
    """

    # lm_eval's default for tasks without `max_gen_toks`.
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
            rule = 'at least 1; "auto" is not supported'
            raise invalid("batch_size", rule, batch_size)
        self.batch_size = int(batch_size)
        axes = {} if mesh is None else distribution.parse_mesh(mesh)
        rows = distribution.row_parts(axes)
        if self.batch_size % rows:
            rule = f"a multiple of {rows}, the row axes of mesh={mesh!r}"
            raise invalid("batch_size", rule, self.batch_size)
        if isinstance(pretrained, keras.Model):
            for name, value in (("dtype", dtype), ("mesh", mesh)):
                if value is not None:
                    rule = "`None` when `pretrained` is a model, which has its own"
                    raise invalid(name, rule, value)
            model = pretrained
        else:
            model = load_model(pretrained, dtype=dtype, mesh=mesh)
        if model.preprocessor is None:
            raise invalid("pretrained", "a causal LM with a preprocessor", pretrained)
        self.model = model
        self.scorer = Scorer(model, batch_size=self.batch_size, max_length=max_length)
        self.max_length = self.scorer.max_length
        self.tokenizer = model.preprocessor.tokenizer

    # === Tokens ===

    @property
    def eot_token_id(self):
        return self.tokenizer.end_token_id

    @property
    def prefix_token_id(self):
        start = self.tokenizer.start_token_id
        if start is None:  # a model may have one that no text begins with
            start = getattr(self.tokenizer, "bos_token_id", None)
        return self.eot_token_id if start is None else start

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        """Token ids of a text.

        Args:
            string: The text.
            add_special_tokens: Whether to put a start token before the text.
                Defaults to `add_start_token` of the preprocessor, and to
                `False` before another start token.
            **kwargs: Ignored.

        Returns:
            A list of ints.
        """
        ids = self.tokenizer(string).tolist()
        start = self.tokenizer.start_token_id
        if start is None:  # such as Qwen's
            return ids
        if add_special_tokens is None:
            add = self.model.preprocessor.add_start_token and ids[:1] != [start]
        else:
            add = add_special_tokens
        return [start, *ids] if add else ids

    # === Log-likelihoods ===

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
        """Log-likelihoods of continuations; lm_eval's base class calls this.

        Args:
            requests: Triples: the cache key of the request or `None`, the token
                ids of the context, the prefix token if there are none, and the token
                ids of the continuation.
            disable_tqdm: Whether to show no progress.
            **kwargs: Ignored.

        Returns:
            Pairs, in the order of the requests: the log-likelihood, and whether
            greedy decoding would write the continuation.

        Raises:
            ValueError: if a continuation is empty or longer than `max_length`.
        """
        rows = [
            ScoreRequest(
                # A context of blanks alone, which lm_eval moves to the continuation.
                context=context or [self.prefix_token_id],
                continuation=continuation,
                name=f"request {i}" if key is None else str(key),
            )
            for i, (key, context, continuation) in enumerate(requests)
        ]
        answers = [None] * len(requests)
        with tqdm(total=len(rows), desc="Log-likelihoods", disable=disable_tqdm) as bar:
            for batch in self.scorer.score(rows):
                for i, score in batch:
                    answers[i] = (score.log_likelihood, score.is_greedy)
                    key = requests[i][0]
                    if key is not None:
                        self.cache_hook.add_partial("loglikelihood", key, answers[i])
                bar.update(len(batch))
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Log-likelihoods of whole texts, each behind the prefix token.

        A text longer than `max_length` is cut into windows. The first token of
        a window is scored after one token of context. The last window is filled
        up with more context.

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
            requests: `Instance`s whose `args` are `(prompt, generation_kwargs)`.
                The latter may be `until` (stop strings), `max_gen_toks`,
                `do_sample`, `temperature`, `top_k`, `top_p` and `min_p`. A
                prompt loses its beginning if it leaves no room for `max_gen_toks`.
            disable_tqdm: Whether to show no progress.

        Returns:
            A list of texts, without their stop strings.

        Raises:
            ValueError: for other settings, for sampling without a temperature,
                or if `max_gen_toks` is not below `max_length`.
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
        with tqdm(total=len(texts), desc="Completions", disable=disable_tqdm) as bar:
            for (sampler, stop), group in groups.items():
                numbers, sample_requests = zip(*group, strict=True)
                for batch in sampler.sample(sample_requests, stop=stop):
                    for at, completion in batch:
                        i = numbers[at]
                        texts[i] = completion.text
                        self.cache_hook.add_partial(
                            "generate_until", requests[i].args, texts[i]
                        )
                    bar.update(len(batch))
        return texts

    def _sampling_arguments(self, settings):
        """Stop strings, and arguments of `get_sampler`."""
        rest = dict(normalize_gen_kwargs(settings, self.max_gen_toks))
        stop = tuple(s for s in rest.pop("until") if s)
        max_new_tokens = rest.pop("max_gen_toks")
        do_sample = rest.pop("do_sample")
        temperature = float(rest.pop("temperature", 0))
        names = "top_k", "top_p", "min_p"
        choices = {name: rest.pop(name, None) for name in names}
        if rest:
            raise invalid(
                "generation_kwargs",
                "no settings but `until`, `max_gen_toks`, `do_sample`, "
                "`temperature`, `top_k`, `top_p` and `min_p`",
                settings,
            )
        if do_sample and temperature <= 0:
            rule = "more than 0 if do_sample is true"
            raise invalid("temperature", rule, temperature)
        if not 1 <= max_new_tokens < self.max_length:
            rule = f"at least 1 and less than max_length={self.max_length}"
            raise invalid("max_gen_toks", rule, max_new_tokens)
        if not do_sample:
            return stop, {"max_new_tokens": max_new_tokens}
        choices |= {"max_new_tokens": max_new_tokens, "temperature": temperature}
        return stop, choices


if __name__ == "__main__":
    cli_evaluate()
