"""The prompts of requests: texts, token ids and chats as token ids."""

import dataclasses
from collections.abc import Mapping, Sequence

from star_keras.sampling import ContinuousSampler
from star_keras.serving.api_error import ApiError, bad_field
from star_keras.serving.protocol import ApiRequest
from star_keras.training.examples import tokenize_prompts

# Characters; tokens of many blanks are the longest.
_LONGEST_TOKEN = 256


@dataclasses.dataclass
class Prompt:
    """A prompt of a request.

    Attributes:
        text: Its text; may be empty for a prompt of token ids that is not echoed.
        token_ids: Its token ids.
        log_probs: Log-probabilities of the tokens from the second on.
        top_log_probs: The likeliest tokens at their places.
    """

    text: str
    token_ids: list[int]
    log_probs: Sequence[float] = ()
    top_log_probs: Sequence[tuple] = ()


class PromptReader:
    """Makes token ids of requests.

    Args:
        sampler: Its model and tokenizer are used.
        chat: A `ChatTemplate`, or `None` for a model that cannot chat.
        name: Name of the model in errors.
        max_length: Most tokens of a prompt and its completion.
    """

    def __init__(self, sampler: ContinuousSampler, chat, *, name, max_length):
        self._sampler, self._chat = sampler, chat
        self._name, self._max_length = name, max_length
        # To tokenize more would take time, and be refused.
        self._max_characters = max_length * _LONGEST_TOKEN

    def read(self, request: ApiRequest) -> list[Prompt]:
        """The prompts of a request, without log-probabilities.

        Raises:
            ApiError: if there is no chat template, it refuses the messages, or a prompt
                is empty, too long, or has ids beyond the vocabulary.
        """
        if request.messages:
            texts = [self._chat_text(request.messages)]
            rows = self.tokenize(texts, add_start_token=False)
        elif isinstance(request.prompts[0], str):
            texts, rows = request.prompts, self.tokenize(request.prompts)
        else:
            rows = [self._checked_ids(ids) for ids in request.prompts]
            texts = [""] * len(rows)
        if request.echo and not all(texts):
            texts = self._sampler.tokenizer.detokenize(rows)
        for i, ids in enumerate(rows):
            self._check_length(i, len(ids), request)
        return [Prompt(text, ids) for text, ids in zip(texts, rows, strict=True)]

    def stop(self, request: ApiRequest) -> tuple[str, ...]:
        """The stop strings of a request, with the end of a turn if no token ends it."""
        if not request.messages:
            return request.stop
        end = self._sampler.tokenizer.token_to_id(self._chat.end_of_turn)
        if end in self._sampler.reader.end_token_ids:
            return request.stop
        return (*request.stop, self._chat.end_of_turn)

    def tokenize(
        self, texts: Sequence[str], add_start_token: bool = True
    ) -> list[list[int]]:
        """Token ids of texts, see `tokenize_prompts`.

        Raises:
            ApiError: if a text has more characters than `max_length` long tokens.
        """
        for text in texts:
            if len(text) > self._max_characters:
                raise ApiError(
                    400,
                    f"A prompt has {len(text)} characters. Expected at most "
                    f"{self._max_characters}, since the limit is {self._max_length} "
                    "tokens. Shorten it.",
                    code="context_length_exceeded",
                )
        preprocessor = self._sampler.model.preprocessor
        rows = tokenize_prompts(preprocessor, texts, add_start_token=add_start_token)
        return [[int(i) for i in ids] for ids in rows]

    def _checked_ids(self, ids):
        try:
            return self._sampler.checked_ids("prompt", ids)
        except ValueError as error:
            raise ApiError(400, str(error), param="prompt") from None

    def _chat_text(self, messages: Sequence[Mapping[str, str]]):
        if self._chat is None:
            raise ApiError(
                400,
                f"The model {self._name!r} has no chat template. Use /v1/completions.",
                code="no_chat_template",
            )
        system = ""
        if messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        if not messages or messages[-1]["role"] != "user":
            rule = "a list whose last message is the user's"
            raise bad_field("messages", rule, messages)
        turns = [(message["role"], message["content"]) for message in messages]
        try:
            return self._chat.prompt(turns, system)
        except ValueError as error:
            raise ApiError(400, str(error), param="messages") from None

    def _check_length(self, number, length, request):
        new = 1 if request.max_tokens is None else request.max_tokens
        if length and length + new <= self._max_length:
            return
        param = "messages" if request.messages else "prompt"
        name = param if request.messages else f"prompt {number}"
        if not length:
            message = f"The {name} is empty. Expected at least one token."
            raise ApiError(400, message, param=param)
        raise ApiError(
            400,
            f"The {name} has {length} tokens, and with {new} new tokens that makes "
            f"{length + new}, more than the limit of {self._max_length}. Shorten it "
            "or ask for fewer tokens.",
            param=param,
            code="context_length_exceeded",
        )
