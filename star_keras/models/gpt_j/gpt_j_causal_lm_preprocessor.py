"""From text to the token ids that `GPTJCausalLM` reads, and back."""

import keras
from keras_hub.models import CausalLMPreprocessor

from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_tokenizer import GPTJTokenizer


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into rows of token ids for `GPTJCausalLM`.

    GPT-J was trained without a start token. This preprocessor therefore adds none
    by default, unlike GPT-2's preprocessor in KerasHub.

    Args:
        tokenizer: A `GPTJTokenizer`.
        sequence_length: int. Length of the rows. Defaults to `1024`.
        add_start_token: bool. Whether training rows and prompts begin with the
            start token. Defaults to `False`.
        add_end_token: bool. Whether training rows end with the end token.
            Defaults to `True`.
        **kwargs: Arguments of `keras_hub.models.CausalLMPreprocessor`.

    Call arguments:
        x: string, or list of strings.

    Returns:
        `(x, y, sample_weight)`: a dict of `token_ids`, int32, and `padding_mask`,
        bool; the next tokens, int32; and bool weights, false for padding. All are
        `(batch, sequence_length)`, or `(sequence_length,)` for one string.
    """

    backbone_cls = GPTJBackbone
    tokenizer_cls = GPTJTokenizer

    def __init__(
        self,
        tokenizer,
        sequence_length=1024,
        add_start_token=False,
        add_end_token=True,
        **kwargs,
    ):
        super().__init__(
            tokenizer,
            sequence_length=sequence_length,
            add_start_token=add_start_token,
            add_end_token=add_end_token,
            **kwargs,
        )

    def _generate_preprocess_python(self, x, sequence_length=None):
        # The base class puts a start token before every prompt.
        if not self.built:
            self.build(None)
        token_ids, padding_mask = self.packer(
            self.tokenizer(x),
            sequence_length=sequence_length,
            add_start_value=self.add_start_token,
            add_end_value=False,
        )
        return {"token_ids": token_ids, "padding_mask": padding_mask}
