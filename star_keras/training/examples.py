"""Tokenized training examples: a prompt and its response."""

import dataclasses
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from star_keras.utils.continuations import Continuations
from star_keras.utils.errors import invalid


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """Token ids of a prompt and of the response to learn.

    Args:
        prompt_ids: int32 array `(P,)`, `P >= 1`.
        response_ids: int32 array `(R,)`, `R >= 1`, end token included.
        weight: Weight of each response token in the loss, finite and at least 0.
        reference: Log-probability of the response under the reference model of a
            pair, see `star_keras.training.reference_scorer`.
    """

    prompt_ids: np.ndarray
    response_ids: np.ndarray
    weight: float = 1.0
    reference: float = 0.0

    def __len__(self):
        # The last token is only a target, never an input.
        return len(self.prompt_ids) + len(self.response_ids) - 1


def tokenize_prompts(
    preprocessor, prompts: Sequence[str], *, add_start_token: bool = True
) -> list[list[int]]:
    """Tokenize prompts.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`. If its
            `add_start_token` is set, prompts begin with the start token.
        prompts: The texts.
        add_start_token: `False` for texts of chat templates, which begin as the
            template wants.

    Returns:
        Token ids, a list for each prompt.
    """
    tokenizer = preprocessor.tokenizer
    starts = add_start_token and preprocessor.add_start_token
    start = [tokenizer.start_token_id] if starts else []
    return [[*start, *ids] for ids in tokenizer(list(prompts))]


def tokenize_examples(
    preprocessor,
    texts: Sequence[tuple[str, str, float]],
    *,
    add_start_token: bool = True,
    end_token_id: int | None = None,
) -> list[TrainingExample]:
    """Tokenize prompts and responses, and add the end token to the responses.

    Prompt and response are tokenized separately, as in sampling: the response as text
    behind other text, see `Continuations`. No token spans the boundary between them.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`, see
            `tokenize_prompts`.
        texts: Triples `(prompt, response, weight)`.
        add_start_token: See `tokenize_prompts`.
        end_token_id: The token behind the responses. Defaults to the tokenizer's.

    Returns:
        A `TrainingExample` for each triple. Equal prompts are one array.

    Raises:
        ValueError: if a weight is no finite number of at least 0.
    """
    if not texts:
        return []
    prompts, responses, weights = zip(*checked_texts(texts), strict=True)
    tokenizer = preprocessor.tokenizer
    end = tokenizer.end_token_id if end_token_id is None else end_token_id
    # Examples of a problem have the same prompt.
    different = list(dict.fromkeys(prompts))
    ids = tokenize_prompts(preprocessor, different, add_start_token=add_start_token)
    prompt_ids = dict(zip(different, map(_int32, ids), strict=True))
    return [
        TrainingExample(
            prompt_ids=prompt_ids[prompt],
            response_ids=_int32([*response_ids, end]),
            weight=weight,
        )
        for prompt, response_ids, weight in zip(
            prompts, Continuations(tokenizer).tokenize(responses), weights, strict=True
        )
    ]


def response_tokens(tokenizer, chat) -> dict:
    """The tokens around prompts and responses, arguments of `tokenize_examples`.

    Args:
        tokenizer: The tokenizer.
        chat: The `ChatTemplate` of the texts, whose end of a turn ends responses, or
            `None` for plain text.
    """
    if chat is None:
        return {}
    end = tokenizer.token_to_id(chat.end_of_turn)
    return {"add_start_token": False, "end_token_id": end}


def checked_texts(texts: Iterable[tuple[str, str, float]]) -> Iterator[tuple]:
    """The triples of `tokenize_examples`, each checked when it is read.

    Raises:
        ValueError: if a weight is no finite number of at least 0.
    """
    for i, (prompt, response, weight) in enumerate(texts):
        if not (isinstance(weight, numbers.Real) and 0 <= weight < math.inf):
            raise invalid(f"texts[{i}].weight", "a finite number of at least 0", weight)
        yield prompt, response, weight


def _int32(ids):
    return np.asarray(ids, "int32")
