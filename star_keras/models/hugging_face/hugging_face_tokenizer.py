"""A tokenizer that is the tokenizer.json of a Hugging Face directory."""

import functools
import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import tokenizers

from star_keras.models.hugging_face.chat_template import read_chat_template
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import read_json_object

_TOKENIZER = "tokenizer.json"
_FILES = "tokenizer_files.json"


@keras.saving.register_keras_serializable(package="star_keras")
class HuggingFaceTokenizer(keras_hub.tokenizers.Tokenizer):
    """The tokenizer of a Hugging Face directory, equal to transformers' id for id.

    Special tokens in a text, such as `"<|im_end|>"`, become their ids. No start token
    is added here: that is the preprocessor's part.

    Args:
        tokenizer: The text of a tokenizer.json, or a `tokenizers.Tokenizer`. Defaults
            to none, until `load_assets`.
        end_token_ids: Ids of the tokens that end a text. The first of them is
            `end_token_id`, which ends a text of training.
        start_token_id: int. Id of the token before each text. Defaults to `None`, for
            models without one.
        pad_token_id: int. Id of the padding. Defaults to `end_token_id`.
        max_sequence_length: int. The longest sequence of the model. Defaults to
            `None`, if it is not known.
        files: Dict from name to text of other files of the directory, such as
            `"tokenizer_config.json"`. They are kept for an export, and have the chat
            template.
        **kwargs: Arguments of `keras_hub.tokenizers.Tokenizer`.

    Call arguments:
        inputs: string, or list of strings.

    Returns:
        int32 token ids: an array `(length,)` for one string, else a list of lists.

    Raises:
        ValueError: if there is no end token, or an id is not one of the tokenizer.

    Example:
    ```python
    import tokenizers

    words = {"<end>": 0, "yes": 1, "no": 2}
    model = tokenizers.models.WordLevel(words, unk_token="<end>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = HuggingFaceTokenizer(tokenizer, end_token_ids=[0])
    tokenizer(["yes no", "no"])  # [[1, 2], [2]]
    ```
    """

    # The preprocessor of Gemma 3 asks for it. Text has none.
    start_of_image_token_id = None

    def __init__(
        self,
        tokenizer=None,
        *,
        end_token_ids,
        start_token_id=None,
        pad_token_id=None,
        max_sequence_length=None,
        files=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        end_token_ids = tuple(int(i) for i in end_token_ids)
        if not end_token_ids:
            raise invalid("end_token_ids", "at least one id", end_token_ids)
        self.end_token_ids = end_token_ids
        self.end_token_id = end_token_ids[0]
        if len(end_token_ids) > 1:
            # `CausalLM.generate` looks whether there is a second one.
            self.end_token2_id = end_token_ids[1]
        self.start_token_id = start_token_id
        self.pad_token_id = self.end_token_id if pad_token_id is None else pad_token_id
        self.max_sequence_length = max_sequence_length
        self.files = dict(files or {})
        self.file_assets = [_TOKENIZER, _FILES]
        self._tokenizer = None
        if tokenizer is not None:
            self._set_tokenizer(tokenizer)

    def _set_tokenizer(self, tokenizer):
        if isinstance(tokenizer, str):
            tokenizer = tokenizers.Tokenizer.from_str(tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        for name in ("end_token_ids", "start_token_id", "pad_token_id"):
            value = getattr(self, name)
            ids = value if isinstance(value, tuple) else (value,)
            if any(i is not None and not 0 <= i < self._size for i in ids):
                raise invalid(name, f"ids below {self._size}", value)

    # === Text and ids ===

    def call(self, inputs):
        # The base class would take every id of the result in its hand.
        return self.tokenize(inputs)

    def tokenize(self, inputs):
        texts, batched = _texts(inputs)
        rows = [
            encoding.ids
            for encoding in self._loaded().encode_batch(texts, add_special_tokens=False)
        ]
        return rows if batched else np.array(rows[0], "int32")

    def detokenize(self, inputs):
        """The text of token ids, special tokens included.

        Args:
            inputs: ints, or rows of ints. Ids beyond the vocabulary, which a padded
                embedding has, have no text.

        Returns:
            string, or list of strings.
        """
        rows, batched = _rows(inputs)
        texts = self._loaded().decode_batch(
            [[i for i in row if 0 <= i < self._size] for row in rows],
            skip_special_tokens=False,
        )
        return texts if batched else texts[0]

    @functools.cached_property
    def chat_template(self):
        """The `ChatTemplate` of the directory, or `None`.

        Raises:
            ValueError: if it is malformed, see `ChatTemplate`.
        """
        tokens = self._loaded().get_added_tokens_decoder().values()
        special = [token.content for token in tokens if token.special]
        return read_chat_template(self.files, special)

    @functools.cached_property
    def bos_token_id(self):
        """int. Id of the directory's `bos_token`, or `None`.

        Unlike the token of `start_token_id`, it need not stand before a text.
        """
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            token = json.loads(self.files.get(name, "{}")).get("bos_token")
            if token:
                text = token["content"] if isinstance(token, dict) else token
                return self._loaded().token_to_id(text)
        return None

    # === Vocabulary ===

    @property
    def special_tokens(self):
        """List of the start, end and padding tokens."""
        return [self.id_to_token(i) for i in self.special_token_ids]

    @property
    def special_token_ids(self):
        """List of the ids of the start, end and padding tokens."""
        ids = [self.start_token_id, *self.end_token_ids, self.pad_token_id]
        return sorted({i for i in ids if i is not None})

    def vocabulary_size(self):
        """int. One more than the largest id. The model may have more rows."""
        self._loaded()
        return self._size

    def get_vocabulary(self):
        """List of the tokens, by id; `""` for an id without a token."""
        tokens = [""] * self.vocabulary_size()
        for token, i in self._loaded().get_vocab(with_added_tokens=True).items():
            tokens[i] = token
        return tokens

    def id_to_token(self, id):
        """The token of an id."""
        token = self._loaded().id_to_token(int(id))
        if token is None:
            raise invalid("id", f"an id of the {self._size} tokens", id)
        return token

    def token_to_id(self, token):
        """The id of a token.

        Gemma 3's `generate` asks for `"<end_of_turn>"`, whether there is one or not:
        without it, that is the end token.
        """
        found = self._loaded().token_to_id(token)
        if found is None:
            if token == "<end_of_turn>":
                return self.end_token_id
            raise invalid("token", "a token of the vocabulary", token)
        return found

    def _loaded(self):
        if self._tokenizer is None:
            raise ValueError(
                "The tokenizer has no vocabulary yet. Pass `tokenizer`, or call "
                "`load_assets`."
            )
        return self._tokenizer

    # === Saving ===

    def to_json(self):
        """The text of a tokenizer.json."""
        return self._loaded().to_str(pretty=True)

    def save_assets(self, dir_path):
        directory = Path(dir_path)
        (directory / _TOKENIZER).write_text(self.to_json(), encoding="utf-8")
        (directory / _FILES).write_text(
            json.dumps(self.files, indent=2, ensure_ascii=False), encoding="utf-8"
        )

    def load_assets(self, dir_path):
        directory = Path(dir_path)
        self._set_tokenizer((directory / _TOKENIZER).read_text(encoding="utf-8"))
        self.files = read_json_object(directory / _FILES)

    def get_config(self):
        return {
            **super().get_config(),
            "end_token_ids": list(self.end_token_ids),
            "start_token_id": self.start_token_id,
            "pad_token_id": self.pad_token_id,
            "max_sequence_length": self.max_sequence_length,
        }


def _texts(inputs):
    if hasattr(inputs, "numpy"):  # TensorFlow's strings
        inputs = inputs.numpy()
    if isinstance(inputs, np.ndarray):
        inputs = inputs.tolist()
    batched = isinstance(inputs, list | tuple)
    texts = inputs if batched else [inputs]
    if not all(isinstance(text, str | bytes) for text in texts):
        rule = "a string or a list of strings, and no graph of TensorFlow around"
        raise invalid("inputs", rule, inputs)
    return [t.decode("utf-8") if isinstance(t, bytes) else t for t in texts], batched


def _rows(inputs):
    if hasattr(inputs, "to_list"):  # TensorFlow's ragged tensors
        inputs = inputs.to_list()
    elif not isinstance(inputs, list | tuple):
        inputs = np.asarray(inputs).tolist()
    if isinstance(inputs, int):
        inputs = [inputs]
    inputs = list(inputs)
    batched = bool(inputs) and np.ndim(inputs[0]) > 0
    rows = inputs if batched else [inputs]
    return [[int(i) for i in row] for row in rows], batched
