"""The texts of single tokens, and log-probabilities as clients read them."""

from collections.abc import Iterable, Sequence

from star_keras.utils.continuations import Continuations

# JSON has no infinity.
_LOWEST = -9999.0

Pairs = Sequence[tuple[int, float]]


class TokenTexts:
    """Texts of token ids, each computed once.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer):
        self._continuations = Continuations(tokenizer)
        self._texts: dict[int, str] = {}

    def texts(self, token_ids: Iterable[int]) -> list[str]:
        """A text for each id; `"\\ufffd"` for part of a character."""
        ids = list(token_ids)
        if missing := [[i] for i in dict.fromkeys(ids) if i not in self._texts]:
            found = self._continuations.detokenize(missing)
            self._texts |= zip((i for (i,) in missing), found, strict=True)
        return [self._texts[i] for i in ids]

    def completion_log_probs(
        self,
        token_ids: Sequence[int],
        log_probs: Sequence[float | None],
        top: Sequence[Pairs | None],
        count: int,
        offset: int = 0,
    ) -> dict:
        """`logprobs` of a choice of `/v1/completions`.

        Args:
            token_ids: The tokens.
            log_probs: Their log-probabilities; `None` for the first of a prompt.
            top: The likeliest tokens at their places.
            count: How many of those to show.
            offset: Place of the first token in the text of the choice.
        """
        tokens, offsets = self.texts(token_ids), []
        for text in tokens:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": tokens,
            "token_logprobs": [None if x is None else _finite(x) for x in log_probs],
            "top_logprobs": [
                None if pairs is None else self._by_text(pairs[:count], token, value)
                for pairs, token, value in zip(top, tokens, log_probs, strict=True)
            ]
            if count
            else None,
            "text_offset": offsets,
        }

    def _by_text(self, pairs, token, log_prob):
        texts = self.texts(i for i, _ in pairs)
        found: dict[str, float] = {}
        # Of two tokens with the same text, the likelier one.
        for text, (_, value) in zip(texts, pairs, strict=True):
            found.setdefault(text, _finite(value))
        found.setdefault(token, _finite(log_prob))
        return found

    def chat_log_probs(
        self,
        token_ids: Sequence[int],
        log_probs: Sequence[float],
        top: Sequence[Pairs],
        count: int,
    ) -> dict:
        """`logprobs` of a choice of `/v1/chat/completions`, see above."""
        content = []
        for token, value, pairs in zip(
            self.texts(token_ids), log_probs, top, strict=True
        ):
            shown = pairs[:count]
            texts = self.texts(i for i, _ in shown)
            likeliest = [
                _chat_token(text, x) for text, (_, x) in zip(texts, shown, strict=True)
            ]
            content.append(_chat_token(token, value) | {"top_logprobs": likeliest})
        return {"content": content, "refusal": None}


def _chat_token(text, log_prob):
    whole = "\ufffd" not in text
    return {
        "token": text,
        "logprob": _finite(log_prob),
        "bytes": list(text.encode()) if whole else None,
    }


def _finite(log_prob):
    # False for NaN too.
    return log_prob if log_prob > _LOWEST else _LOWEST
