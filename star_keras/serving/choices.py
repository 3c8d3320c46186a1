"""Prompts and completions as the choices of an answer."""

import dataclasses
from collections.abc import Sequence

from star_keras.sampling import Completion
from star_keras.serving.prompts import Prompt
from star_keras.serving.protocol import ApiRequest
from star_keras.serving.token_texts import TokenTexts


@dataclasses.dataclass(frozen=True)
class Choice:
    """A completion, and its number among those of the request."""

    index: int
    completion: Completion


class Answers:
    """The JSON of the answers to one request.

    Args:
        request: The request.
        prompts: Its prompts.
        texts: The texts of tokens.
        name: Name of the model.
        answer_id: Name of the answer.
        created: Seconds since 1970.
    """

    def __init__(
        self,
        request: ApiRequest,
        prompts: Sequence[Prompt],
        texts: TokenTexts,
        *,
        name: str,
        answer_id: str,
        created: int,
    ):
        self.request, self.prompts, self._texts = request, prompts, texts
        self.is_chat = bool(request.messages)
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        self._same = {"id": f"{prefix}-{answer_id}", "created": created, "model": name}
        self._offsets: dict[int, int] = {}

    def whole(self, choices: Sequence[Choice]) -> dict:
        """The answer in one."""
        return {
            **self._same,
            "object": "chat.completion" if self.is_chat else "text_completion",
            "choices": [self._whole_choice(choice) for choice in choices],
            "usage": self.usage(sum(x.completion.num_tokens for x in choices)),
        }

    def _whole_choice(self, choice):
        index, completion = choice.index, choice.completion
        found = {"index": index, "finish_reason": completion.finish_reason}
        text, prompt_log_probs = self._echo(index) if self.request.echo else ("", None)
        log_probs = self._log_probs(index, *self._new_tokens(completion))
        if self.is_chat:
            message = {"role": "assistant", "content": completion.text, "refusal": None}
            return {**found, "message": message, "logprobs": log_probs}
        if prompt_log_probs is not None:
            log_probs = _joined(prompt_log_probs, log_probs)
        return {**found, "text": text + completion.text, "logprobs": log_probs}

    def usage(self, num_new_tokens: int) -> dict:
        """The numbers of tokens."""
        num_prompt_tokens = sum(len(prompt.token_ids) for prompt in self.prompts)
        return {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": num_new_tokens,
            "total_tokens": num_prompt_tokens + num_new_tokens,
        }

    # === Parts of a stream ===

    def first_part(self, index: int) -> dict | None:
        """What a choice begins with: the role, or the echo; or nothing."""
        if self.is_chat:
            return self._part(index, {"role": "assistant", "content": ""}, None)
        if self.request.echo:
            return self._part(index, *self._echo(index))
        return None

    def next_part(
        self,
        index: int,
        text: str,
        new: tuple,
        finish_reason: str | None = None,
    ) -> dict:
        """New text.

        Args:
            index: The choice.
            text: The new text.
            new: Token ids, log-probabilities and likeliest tokens; the last two
                `None` if not asked for.
            finish_reason: Why this is the last part of the choice.
        """
        log_probs = self._log_probs(index, *new)
        if self.is_chat:
            text = {"content": text} if text or finish_reason is None else {}
        return self._part(index, text, log_probs, finish_reason)

    def last_part(self, completion: Completion, num_reported: int) -> tuple:
        """`new` of `next_part` for the tokens that have not been reported."""
        return tuple(
            None if values is None else values[num_reported:]
            for values in self._new_tokens(completion)
        )

    def usage_part(self, num_new_tokens: int) -> dict:
        """The end of a stream with `include_usage`."""
        return self._stream([]) | {"usage": self.usage(num_new_tokens)}

    def _part(self, index, text, log_probs, finish_reason=None):
        found = {"index": index, "logprobs": log_probs, "finish_reason": finish_reason}
        found["delta" if self.is_chat else "text"] = text
        return self._stream([found])

    def _stream(self, choices):
        name = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {**self._same, "object": name, "choices": choices}

    # === Log-probabilities ===

    def _new_tokens(self, completion):
        return completion.token_ids, completion.log_probs, completion.top_log_probs

    def _log_probs(self, index, token_ids, log_probs, top):
        count = self.request.log_probs
        if count is None:
            return None
        token_ids, log_probs = token_ids or (), log_probs or ()
        top = top or [()] * len(token_ids)
        if self.is_chat:
            return self._texts.chat_log_probs(token_ids, log_probs, top, count)
        return self._at_offset(index, token_ids, log_probs, top)

    def _echo(self, index):
        """Text and log-probabilities of the prompt of a choice."""
        prompt = self.prompts[index // self.request.n]
        if self.request.log_probs is None:
            return prompt.text, None
        log_probs = [None, *prompt.log_probs]
        top = [None, *prompt.top_log_probs]
        return prompt.text, self._at_offset(index, prompt.token_ids, log_probs, top)

    def _at_offset(self, index, token_ids, log_probs, top):
        offset = self._offsets.get(index, 0)
        found = self._texts.completion_log_probs(
            token_ids, log_probs, top, self.request.log_probs, offset
        )
        self._offsets[index] = offset + sum(map(len, found["tokens"]))
        return found


def _joined(first, second):
    """The log-probabilities of a prompt and of its completion."""
    return {
        name: None if value is None else value + second[name]
        for name, value in first.items()
    }
