"""GPT-J's tokenizer: the byte-pair encoding of GPT-2."""

import keras
from keras_hub.tokenizers import BytePairTokenizer
from tokenizers import pre_tokenizers

from star_keras.models.gpt_j_backbone import GPTJBackbone


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJTokenizer(BytePairTokenizer):
    """Byte-pair encoding, equal to GPT-2's token for token.

    GPT-J shares GPT-2's 50,257 tokens; its embedding is padded to 50,400
    rows. `"<|endoftext|>"` starts, ends and pads a sequence.

    Args:
        vocabulary: dict from token to id, or the path of a JSON file.
        merges: list of merge rules `"a b"`, or the path of a text file with
            one rule a line.

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
        # The base class takes the regular expression that splits words as a
        # literal string; ByteLevel has GPT-2's own.
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=self.add_prefix_space, use_regex=True
        )

    @property
    def pad_token_id(self):
        return self.end_token_id
