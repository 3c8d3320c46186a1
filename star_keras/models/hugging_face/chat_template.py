"""Chat templates of Hugging Face directories: messages in, one text out."""

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence

import jinja2
import jinja2.ext
import jinja2.sandbox

from star_keras.utils.errors import invalid

# `strftime_now` of templates. A fixed day: the prompts of a run never change.
_TODAY = datetime.datetime(2024, 7, 26)
_QUESTION, _RESPONSE = "\0question\0", "\0response\0"
_MARK = re.compile(r"[<\[][^\s<>\[\]\0]+[>\]]")
# Not escaped: they end no turn, and worked examples may have thoughts.
_THOUGHTS = {"<think>", "</think>"}
_SPECIAL = re.compile(r"\w+_token")


class ChatTemplate:
    """Renders messages as transformers' `apply_chat_template` does.

    Args:
        template: The text of a template in the language of Jinja.
        variables: The texts of the special tokens by their names, such as
            `"bos_token"`, as the template knows them.
        special_tokens: Tokens that become one id wherever they stand in a text.

    Attributes:
        end_of_turn: The special token that ends a turn of the assistant.
        opens_thoughts: Whether the assistant's turn begins with `<think>`.
        marks: What `escape` looks for: the special tokens, and words in brackets that
            the template writes, such as `"[INST]"`.

    Raises:
        ValueError: if the template is malformed, does not show each turn once, or
            ends the assistant's turn without a special token.

    Example:
    ```python
    template = ChatTemplate(
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        special_tokens=["<end>"],
    )
    template.render([{"role": "user", "content": "Hi"}])  # "<user>Hi<end><assistant>"
    template.end_of_turn  # "<end>"
    ```
    """

    def __init__(
        self,
        template: str,
        variables: Mapping[str, str] | None = None,
        special_tokens: Iterable[str] = (),
    ):
        self._variables = dict(variables or {})
        special = {token for token in special_tokens if token}
        try:
            self._template = _environment().from_string(template)
        except jinja2.TemplateError as error:
            raise _malformed(error) from None
        prompt = self.render([_user(_QUESTION)])
        turns = [_user(_QUESTION), {"role": "assistant", "content": _RESPONSE}]
        whole = self.render(turns, add_generation_prompt=False)
        counts = prompt.count(_QUESTION), whole.count(_QUESTION), whole.count(_RESPONSE)
        if set(counts) != {1}:
            rule = "a template that shows each turn once"
            raise invalid("template", rule, whole, "Use chat=False.")
        before, after = whole.split(_RESPONSE)
        self._prompt = prompt
        self._lead = before[len(prompt) :] if before.startswith(prompt) else ""
        self.opens_thoughts = prompt.rstrip().endswith("<think>")
        self.end_of_turn = min(
            (token for token in special if token in after), key=after.index, default=""
        )
        if not self.end_of_turn:
            rule = "a template that ends the assistant's turn with a special token"
            raise invalid("template", rule, after, "Use chat=False.")
        marks = special | set(_MARK.findall(prompt + whole))
        self.marks = sorted(marks - _THOUGHTS)

    def render(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of messages.

        Args:
            messages: Dicts of `role` (`"system"`, `"user"` or `"assistant"`) and
                `content`.
            add_generation_prompt: Whether the beginning of the assistant's turn
                follows.

        Raises:
            ValueError: if the template fails, or refuses the messages.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise _malformed(error) from None

    def prompt(self, turns: Sequence[tuple[str, str]], system: str = "") -> str:
        """The text of turns up to the assistant's next one, contents escaped.

        Args:
            turns: Pairs of a role and a content; the last one is the user's.
            system: The system text. It stands at the beginning of the first user's
                turn if the template refuses or leaves out systems.

        Raises:
            ValueError: see `render`.
        """
        system = self.escape(system)
        messages = [
            {"role": role, "content": self.escape(content)} for role, content in turns
        ]
        if not system:
            return self.render(messages)
        try:
            text = self.render([{"role": "system", "content": system}, *messages])
            if system.strip() in text:
                return text
        except ValueError:
            pass
        first = _user(f"{system}\n\n{messages[0]['content']}")
        return self.render([first, *messages[1:]])

    def completion(self, content: str) -> str:
        """The response that follows `prompt`, without the end of the turn.

        It is what the template writes, e.g. an empty thought before a content without
        thoughts, or a content without blanks around it. Thoughts stay where the
        template would leave them out, and have no empty one before them.

        Raises:
            ValueError: see `render`.
        """
        content = self.escape(content)
        opens, has_end = content.startswith("<think>"), "</think>" in content
        turns = [_user(_QUESTION), {"role": "assistant", "content": content}]
        whole = self.render(turns, add_generation_prompt=False)
        if whole.startswith(self._prompt):
            response = whole[len(self._prompt) :].partition(self.end_of_turn)[0]
            # Templates put an empty thought before thoughts without an end.
            is_closed = not has_end and "</think>" in response
            if _bare(content) in _bare(response) and not (opens and is_closed):
                return response
        if self.opens_thoughts:
            # The prompt ends in `<think>`, which an answer alone must close.
            lead = "" if opens or has_end else "\n</think>\n\n"
            return lead + content.removeprefix("<think>").lstrip("\n")
        return content if "</think>" in self._lead else self._lead + content

    def escape(self, text: str) -> str:
        """A text that cannot end its turn: a blank goes into each of the marks.

        `"<|im_end|>"` becomes `"< |im_end|>"`, which is no special token.
        """
        for mark in self.marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text


def read_chat_template(
    files: Mapping[str, str], special_tokens: Iterable[str] = ()
) -> ChatTemplate | None:
    """The template of a directory.

    Args:
        files: Texts of its files by name. `chat_template.jinja` goes before the
            `chat_template` of `tokenizer_config.json`.
        special_tokens: See `ChatTemplate`.

    Returns:
        The template, or `None` if there is none.

    Raises:
        ValueError: see `ChatTemplate`; if there are templates without a default.
    """
    config = json.loads(files.get("tokenizer_config.json") or "{}")
    template = files.get("chat_template.jinja") or config.get("chat_template")
    if isinstance(template, list):
        named = {item["name"]: item["template"] for item in template}
        if "default" not in named:
            rule = 'one named "default" among them'
            raise invalid("chat_template", rule, sorted(named), "Use chat=False.")
        template = named["default"]
    if not template:
        return None
    special_map = json.loads(files.get("special_tokens_map.json") or "{}")
    variables = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in (special_map | config).items()
        if _SPECIAL.fullmatch(name) and isinstance(token, str | dict)
    }
    return ChatTemplate(template, variables, [*variables.values(), *special_tokens])


def _user(content):
    return {"role": "user", "content": content}


def _bare(text):
    """A text without blanks and the marks of thoughts."""
    return "".join(re.sub("</?think>", "", text).split())


def _malformed(error):
    return ValueError(
        f"The model's chat template failed: {type(error).__name__}: {error}. Expected "
        "a template that renders turns of user and assistant in alternation. Correct "
        "it, or use chat=False."
    )


# === The language: that of transformers, sandboxed ===


def _environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _TODAY.strftime,
        # The classes themselves would give templates a way around the sandbox.
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": _Namespace,
    }
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` around what the assistant writes; changes no text."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args, **kwargs):
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name):
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"the name {name!r} of a namespace")


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message):
    raise jinja2.TemplateError(message)
