"""The end of a completion: end tokens, stop strings, the longest completion."""

import bisect
from collections.abc import Sequence

import keras_hub

from star_keras.sampling.sampler import Completion
from star_keras.utils.continuations import Continuations
from star_keras.utils.errors import invalid


class CompletionReader:
    """Finds the end of a completion in sampled tokens.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer` with an end token.
        max_new_tokens: Longest completion in tokens.

    Attributes:
        end_token_ids: tuple of ints. Each of them ends a completion.

    Raises:
        ValueError: if the tokenizer has no end token.
    """

    def __init__(self, tokenizer, max_new_tokens: int):
        self._continuations = Continuations(tokenizer)
        self.max_new_tokens = max_new_tokens
        self.end_token_ids = end_token_ids(tokenizer)

    def has_ended(
        self,
        ids: Sequence[int],
        new: int,
        stop: Sequence[str] = (),
        max_new_tokens: int | None = None,
    ) -> bool:
        """Whether the newest tokens end a completion.

        Args:
            ids: Token ids that follow the prompt, at least one. Nothing follows an end
                token.
            new: Number of the newest ids.
            stop: Strings that end a completion.
            max_new_tokens: Longest completion. Defaults to the reader's.
        """
        if (
            len(ids) == (max_new_tokens or self.max_new_tokens)
            or ids[-1] in self.end_token_ids
        ):
            return True
        # A stop string of `n` bytes has `n` tokens at most.
        longest = max((len(s.encode()) for s in stop), default=0)
        if not longest:
            return False
        text = self._text(ids[-new - longest :])
        return any(s in text for s in stop)

    def read(
        self,
        ids: Sequence[int],
        stop: Sequence[str] = (),
        log_probs: Sequence[float] | None = None,
        max_new_tokens: int | None = None,
        top_log_probs: Sequence[tuple] | None = None,
    ) -> Completion | None:
        """The completion in sampled tokens.

        Args:
            ids: Token ids that follow the prompt, and possibly more after the
                end of the completion.
            stop: Strings that end a completion.
            log_probs: The log-probability of each of `ids`, or none.
            max_new_tokens: Longest completion. Defaults to the reader's.
            top_log_probs: The likeliest tokens at the place of each of `ids`, or none.

        Returns:
            `None` if the completion goes on after `ids`.
        """
        longest = max_new_tokens or self.max_new_tokens
        kept = list(ids[:longest])
        ends = [i for i, token in enumerate(kept) if token in self.end_token_ids]
        ended = bool(ends)
        if ended:
            kept = kept[: ends[0]]
        text = self._text(kept)
        num_tokens = len(kept) + ended
        stopped = any(s in text for s in stop)
        if stopped:
            # The first token that completes a stop string.
            num_tokens = bisect.bisect_left(
                range(len(kept)),
                True,
                key=lambda n: any(s in self._text(kept[:n]) for s in stop),
            )
            text = self._text(kept[:num_tokens])
            text = text[: min(text.index(s) for s in stop if s in text)]
        if not stopped and not ended and num_tokens < longest:
            return None
        return Completion(
            text=text,
            num_tokens=num_tokens,
            finish_reason="stop" if stopped or ended else "length",
            token_ids=tuple(ids[:num_tokens]) if log_probs is not None else None,
            log_probs=_first(log_probs, num_tokens),
            top_log_probs=_first(top_log_probs, num_tokens),
        )

    def _text(self, ids):
        return self._continuations.detokenize([ids])[0] if len(ids) else ""


def _first(values, count):
    return None if values is None else tuple(values[:count])


def end_token_ids(tokenizer) -> tuple[int, ...]:
    """All tokens that end a completion.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`. Its `end_token_ids` count, or
            else its `end_token_id` and KerasHub's `end_token2_id`, e.g. `<|eot_id|>`
            of Llama 3, and Gemma 3's `<end_of_turn>`.

    Returns:
        At least one token id.

    Raises:
        ValueError: if the tokenizer has no end token.
    """
    ids = getattr(tokenizer, "end_token_ids", None)
    if ids is None:
        names = "end_token_id", "end_token2_id"
        ids = [getattr(tokenizer, name, None) for name in names]
        if isinstance(tokenizer, keras_hub.tokenizers.Gemma3Tokenizer):
            ids.append(tokenizer.token_to_id("<end_of_turn>"))
    ids = tuple(dict.fromkeys(i for i in ids if i is not None))
    if not ids:
        raise invalid("model", "a tokenizer with an end token", type(tokenizer))
    return ids
