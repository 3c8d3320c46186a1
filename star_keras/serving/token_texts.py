"""The texts of single tokens, and log-probabilities as clients read them."""

import re
from collections.abc import Iterable, Sequence

from star_keras.utils.continuations import Continuations

# JSON has no infinity.
_LOWEST = -9999.0

Pairs = Sequence[tuple[int, float]]

# SentencePiece's name of a byte; and byte-level BPE's letter of each byte: itself if it
# can be seen, else one from U+0100 on.
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_VISIBLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
_LETTERS = {chr(byte): byte for byte in _VISIBLE}
_LETTERS |= {chr(256 + i): byte for i, byte in enumerate(_HIDDEN)}


class TokenTexts:
    """Texts of token ids, each computed once.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self._continuations = Continuations(tokenizer)
        self._texts: dict[int, str] = {}

    def texts(self, token_ids: Iterable[int]) -> list[str]:
        """A text for each id; `"\\ufffd"` for part of a character."""
        ids = list(token_ids)
        if missing := [[i] for i in dict.fromkeys(ids) if i not in self._texts]:
            found = self._continuations.detokenize(missing)
            self._texts |= zip((i for (i,) in missing), found, strict=True)
        return [self._texts[i] for i in ids]

    def raw_bytes(self, token_id: int) -> bytes | None:
        """The bytes of an id; `None` if the vocabulary does not say them."""
        (text,) = self.texts([token_id])
        if "\ufffd" not in text:
            return text.encode()
        token = self._tokenizer.id_to_token(token_id)
        if match := _BYTE.fullmatch(token):
            return bytes.fromhex(match[1])
        if _LETTERS.keys() >= set(token):
            return bytes(_LETTERS[letter] for letter in token)
        return text.encode() if text == token else None

    def names(self, token_ids: Iterable[int]) -> list[str]:
        """The texts, but `bytes:\\xf0\\x9f` for part of a character, as OpenAI's."""
        ids = list(token_ids)
        return [
            text if "\ufffd" not in text else self._name(i, text)
            for i, text in zip(ids, self.texts(ids), strict=True)
        ]

    def _name(self, token_id, text):
        found = self.raw_bytes(token_id)
        if found is None or found == text.encode():
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)

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
        tokens, offsets = self.names(token_ids), []
        for text in self.texts(token_ids):
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
        names = self.names(i for i, _ in pairs)
        found: dict[str, float] = {}
        # Of two tokens with the same name, the likelier one.
        for name, (_, value) in zip(names, pairs, strict=True):
            found.setdefault(name, _finite(value))
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
        # All at once: some tokenizers are slow to begin.
        self.texts([*token_ids, *(i for pairs in top for i, _ in pairs[:count])])
        for token_id, value, pairs in zip(token_ids, log_probs, top, strict=True):
            likeliest = [self._chat_token(*pair) for pair in pairs[:count]]
            token = self._chat_token(token_id, value)
            content.append(token | {"top_logprobs": likeliest})
        return {"content": content, "refusal": None}

    def _chat_token(self, token_id, log_prob):
        (text,), found = self.texts([token_id]), self.raw_bytes(token_id)
        return {
            "token": text,
            "logprob": _finite(log_prob),
            "bytes": None if found is None else list(found),
        }


def _finite(log_prob):
    # False for NaN too.
    return log_prob if log_prob > _LOWEST else _LOWEST
