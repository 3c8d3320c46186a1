"""Text that goes on after other text: its token ids, and the text of such ids.

Tokenizers in the manner of SentencePiece, as of Llama 2 and Mistral, put a blank before
each text and take it away in decoding. A response does not begin a text: with such a
blank it would have other tokens than those that were sampled.
"""

from collections.abc import Sequence

import numpy as np

# What stands before a text: to tokenize it a control character, which is not merged
# with others; to read it a letter, no part of a character whose other bytes follow.
_CONTROL, _LETTER = "\x01", "a"


class Continuations:
    """Tokenizes and reads text as it stands behind other text.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        both, self._control, self._letter = self._ids(
            [_CONTROL + _LETTER, _CONTROL, _LETTER]
        )
        self._adds_blanks = both != [*self._control, *self._letter]
        if self._adds_blanks:
            # An unknown character would swallow unknown ones behind it.
            (text,) = tokenizer.detokenize([self._control])
            self._adds_blanks = _CONTROL in text

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that follow others, a list for each text."""
        if not self._adds_blanks:
            return self._ids(list(texts))
        count = len(self._control)
        rows = self._ids([_CONTROL + text for text in texts])
        return [
            # A control character that is merged with the text is no help.
            ids[count:] if ids[:count] == self._control else self._ids([text])[0]
            for text, ids in zip(texts, rows, strict=True)
        ]

    def detokenize(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of rows of token ids that follow others."""
        if not self._adds_blanks:
            return self._tokenizer.detokenize([list(row) for row in rows])
        letter, *texts = self._tokenizer.detokenize(
            [self._letter, *([*self._letter, *row] for row in rows)]
        )
        return [text.removeprefix(letter) for text in texts]

    def _ids(self, texts):
        return [np.asarray(ids).tolist() for ids in self._tokenizer(texts)]
