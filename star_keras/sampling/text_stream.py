"""The text of a completion as its tokens come."""

from collections.abc import Sequence

from star_keras.utils.continuations import Continuations

# Half a character at the end of the tokens so far.
_INCOMPLETE = "\ufffd"


class TextStream:
    """Turns new tokens into new text, none of which is taken back.

    Held back are characters whose last bytes are missing, and what may be the beginning
    of a stop string. The parts together are the text of the completion.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`.
        stop: Strings that end the completion.

    Example:
    ```python
    stream = TextStream(model.preprocessor.tokenizer, stop=["!?"])
    ids = model.preprocessor.tokenizer("Oh!!").tolist()
    stream.add(ids)  # "Oh!"
    stream.finish("Oh!!")  # "!"
    ```
    """

    def __init__(self, tokenizer, stop: Sequence[str] = ()):
        self._continuations = Continuations(tokenizer)
        self._stop = stop
        self._ids: list[int] = []
        self._sent = ""

    def add(self, token_ids: Sequence[int]) -> str:
        """The new text of tokens that do not end the completion."""
        self._ids += token_ids
        (text,) = self._continuations.detokenize([self._ids])
        text = text.rstrip(_INCOMPLETE)
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        return self._advance(text[: len(text) - held])

    def finish(self, text: str) -> str:
        """The rest of the text of the whole completion."""
        return self._advance(text)

    def _advance(self, text):
        # Some tokenizers tidy up blanks that they have written.
        if len(text) <= len(self._sent):
            return ""
        new, self._sent = text[len(self._sent) :], text
        return new


def _overlap(text, stop):
    """Length of the longest end of `text` that begins `stop`, less than the whole."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
