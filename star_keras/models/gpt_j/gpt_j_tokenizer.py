"""GPT-J's tokenizer: the byte-pair encoding of GPT-2."""

import keras
from keras_hub.tokenizers import BytePairTokenizer
from tokenizers import pre_tokenizers

from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJTokenizer(BytePairTokenizer):
    """Byte-pair encoding, equal to GPT-2's token for token.

    GPT-J shares GPT-2's 50,257 tokens. Its embedding is padded to 50,400 rows.
    `"<|endoftext|>"` is start token, end token and padding.

    Args:
        vocabulary: dict from token to id, or path of such a JSON file.
        merges: list of merge rules like `"a b"`, or path of a text file with one
            rule a line.
        **kwargs: Arguments of `keras_hub.tokenizers.BytePairTokenizer`.

    Call arguments:
        inputs: string, or list of strings.

    Returns:
        int32 token ids: an array `(length,)` for one string, else a list of lists.

    Raises:
        ValueError: if the vocabulary lacks `"<|endoftext|>"`.

    Example:
    ```python
    tokenizer = GPTJTokenizer(
        vocabulary={"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3},
        merges=["a b"],
    )
    tokenizer("abb")  # [3, 2]
    ```
    """

    backbone_cls = GPTJBackbone

    def __init__(self, vocabulary=None, merges=None, **kwargs):
        self._add_special_token("<|endoftext|>", "end_token")
        self._add_special_token("<|endoftext|>", "start_token")
        super().__init__(vocabulary=vocabulary, merges=merges, **kwargs)

    def _set_vocabulary_and_merges_tokenizers(self, vocabulary, merges):
        super()._set_vocabulary_and_merges_tokenizers(vocabulary, merges)
        # The base class takes the word-splitting regular expression for a literal
        # string. ByteLevel has GPT-2's own expression.
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=self.add_prefix_space, use_regex=True
        )

    @property
    def pad_token_id(self):
        """int. Id of the padding, which is the end token."""
        return self.end_token_id
