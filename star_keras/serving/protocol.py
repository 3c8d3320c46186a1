"""The bodies of requests: completions and chats, checked field by field.

Reference: https://platform.openai.com/docs/api-reference/completions
"""

import dataclasses
from collections.abc import Sequence

from star_keras.sampling.log_probs import TOP_LOG_PROBS
from star_keras.serving.api_error import bad_field
from star_keras.serving.fields import Fields
from star_keras.utils.records import is_text

# Most completions of a prompt, and prompts of a request.
_MOST_CHOICES, _MOST_PROMPTS = 128, 2048
_SEEDS = 2**63
# Of a completion that is no chat, as OpenAI's.
_DEFAULT_TOKENS = 16
_ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """What both endpoints ask for.

    Attributes:
        model: Name of the model.
        prompts: Texts, or lists of token ids. Empty for a chat.
        messages: The messages of a chat, dicts of `role` and `content`.
        max_tokens: Longest completion; `None` for as many as fit.
        default_tokens: Most of those that fit, if there is a limit.
        temperature: `0` is greedy.
        top_p: Above 0, at most 1.
        n: Completions of each prompt.
        stop: Strings that end a completion.
        seed: Seed of the completions; `None` for one that no other request has.
        log_probs: Likeliest tokens to show at each place; `None` for no
            log-probabilities.
        echo: Whether choices begin with their prompt.
        stream: Whether text is sent as it comes.
        include_usage: Whether a stream ends with the numbers of tokens.
    """

    model: str
    prompts: Sequence[str | list[int]] = ()
    messages: Sequence[dict[str, str]] = ()
    max_tokens: int | None
    default_tokens: int | None = None
    temperature: float
    top_p: float
    n: int
    stop: tuple[str, ...]
    seed: int | None
    log_probs: int | None
    echo: bool = False
    stream: bool
    include_usage: bool


def completion_request(body: dict, max_new_tokens: int) -> ApiRequest:
    """The request of `/v1/completions`.

    Args:
        body: The JSON object.
        max_new_tokens: Most tokens of a completion.

    Raises:
        ApiError: if a field is unknown, not supported, or its value invalid.
    """
    fields = Fields(body)
    echo = fields.boolean("echo")
    request = ApiRequest(
        prompts=_prompts(fields.raw("prompt")),
        echo=echo,
        max_tokens=fields.integer(
            "max_tokens", None, at_least=0 if echo else 1, at_most=max_new_tokens
        ),
        default_tokens=_DEFAULT_TOKENS,
        log_probs=fields.integer("logprobs", None, at_least=0, at_most=TOP_LOG_PROBS),
        **_common(fields),
    )
    fields.unsupported(best_of=(request.n,), suffix=("",))
    fields.finish()
    return request


def chat_request(body: dict, max_new_tokens: int) -> ApiRequest:
    """The request of `/v1/chat/completions`; as for `completion_request`."""
    fields = Fields(body)
    bounds = {"at_least": 1, "at_most": max_new_tokens}
    limits = [
        fields.integer(name, None, **bounds)
        for name in ("max_completion_tokens", "max_tokens")
    ]
    if None not in limits:
        rule = "no field beside `max_completion_tokens`"
        raise bad_field("max_tokens", rule, limits[1])
    log_probs = fields.boolean("logprobs")
    top = fields.integer("top_logprobs", 0, at_least=0, at_most=TOP_LOG_PROBS)
    if top and not log_probs:
        raise bad_field("top_logprobs", "0 without `logprobs`", top)
    request = ApiRequest(
        messages=_messages(fields.raw("messages")),
        max_tokens=next((x for x in limits if x is not None), None),
        log_probs=top if log_probs else None,
        **_common(fields),
    )
    fields.unsupported(
        response_format=({"type": "text"},),
        tools=([],),
        tool_choice=("none", "auto"),
        parallel_tool_calls=(True, False),
        functions=([],),
        function_call=("none",),
        modalities=(["text"],),
        audio=(),
        prediction=(),
        reasoning_effort=(),
        verbosity=(),
        web_search_options=(),
        # They change no answer of this server, which keeps nothing.
        store=(False,),
        metadata=({},),
        service_tier=("auto", "default"),
    )
    fields.finish()
    return request


def _common(fields):
    """The arguments of `ApiRequest` that both endpoints read alike."""
    if (model := fields.text("model")) is None:
        raise bad_field("model", "the name of the model, see /v1/models", None)
    stream = fields.boolean("stream")
    options = fields.raw("stream_options", {})
    if not isinstance(options, dict) or (options and not stream):
        raise bad_field("stream_options", "an object, beside `stream`", options)
    options = Fields(options)
    include_usage = options.boolean("include_usage")
    options.unsupported(include_obfuscation=(False,))
    options.finish()
    found = {
        "model": model,
        "stream": stream,
        "include_usage": include_usage,
        "temperature": fields.number("temperature", 1, at_least=0, at_most=2),
        "top_p": fields.number("top_p", 1, above=0, at_most=1),
        "n": fields.integer("n", 1, at_least=1, at_most=_MOST_CHOICES),
        "stop": fields.stop(),
        "seed": fields.integer("seed", None, at_least=-_SEEDS, at_most=_SEEDS - 1),
    }
    fields.text("user")  # a name for the operator's eyes; changes no answer
    fields.unsupported(frequency_penalty=(0,), presence_penalty=(0,), logit_bias=({},))
    return found


def _prompts(value):
    """Prompts as a list of texts, or of lists of token ids."""
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    is_list = isinstance(value, list) and 1 <= len(value) <= _MOST_PROMPTS
    if not is_list or not (all(map(is_text, value)) or all(map(_is_ids, value))):
        rule = (
            f"a text, a list of 1 to {_MOST_PROMPTS} texts, a list of token ids, or a "
            "list of such lists"
        )
        raise bad_field("prompt", rule, value)
    return value


def _is_ids(value):
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    )


def _messages(value):
    if not isinstance(value, list) or not value:
        raise bad_field("messages", "a list of at least one message", value)
    return [_message(f"messages[{i}]", message) for i, message in enumerate(value)]


def _message(name, message):
    if not isinstance(message, dict):
        raise bad_field(name, "an object of `role` and `content`", message)
    message = {k: v for k, v in message.items() if v is not None}
    content = message.get("content")
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    if not is_text(content):
        raise bad_field(f"{name}.content", "a text, or parts of type text", content)
    if message.get("role") not in _ROLES:
        raise bad_field(f"{name}.role", f"one of {_ROLES}", message.get("role"))
    if unknown := message.keys() - {"role", "content"}:
        field = f"{name}.{min(unknown)}"
        raise bad_field(field, "no field but `role` and `content`", sorted(unknown))
    return {"role": message["role"], "content": content}


def _is_text_part(part):
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and is_text(part["text"])
    )
