"""Prompts: worked examples, then one problem, with or without a hint."""

from star_keras.tasks.task import EXAMPLE_SEPARATOR, Problem, Task
from star_keras.tasks.task_validation import check_example, check_task
from star_keras.utils.errors import invalid

_QUESTION = "\0question\0"


class PromptBuilder:
    """Makes every prompt of a run: plain text, or the turns of a chat.

    In a chat the user asks what `Task.format_question` says, and the assistant answers
    what `Task.format_response` says. Without worked examples the chat begins with
    `Task.system_text`.

    Args:
        task: Its worked examples and its format are used.
        few_shot: Whether prompts begin with the worked examples.
        direct: Whether the worked examples show answers without rationales.
        chat: A `ChatTemplate`, see `find_chat_template`. Defaults to plain text.

    Attributes:
        stop: What ends a completion: the `stop` of the task, or the end of the
            assistant's turn.
        opens_thoughts: Whether prompts end in `<think>`.

    Raises:
        ValueError: if it is no task, its `stop` is no sequence of texts, the
            response of a worked example can never be right, see
            `star_keras.tasks.task_validation`, or the template fails.

    Example:
    ```python
    prompts = PromptBuilder(task)
    problem = task.problems("train")[0]
    assert prompts.build(problem).startswith(prompts.prefix())
    ```
    """

    def __init__(
        self, task: Task, *, few_shot: bool = True, direct: bool = False, chat=None
    ):
        check_task(task)
        if few_shot:
            for example in task.few_shot_examples:
                check_example(task, example)
        self.task = task
        self.few_shot = few_shot
        self.direct = direct
        self.chat = chat
        self.stop = tuple(task.stop) if chat is None else (chat.end_of_turn,)
        self.opens_thoughts = chat is not None and chat.opens_thoughts
        self._turns = {hint: self._make_turns(hint) for hint in (False, True)}
        self._prefixes = {
            hint: self._render(hint, _QUESTION).partition(_QUESTION)[0]
            for hint in (False, True)
        }

    def _make_turns(self, hint):
        """Questions and responses of the worked examples."""
        return [
            (
                self.task.format_question(example.problem, hint=hint),
                self.task.format_response(
                    "" if self.direct else example.rationale, example.problem
                ),
            )
            for example in (self.task.few_shot_examples if self.few_shot else ())
        ]

    def _render(self, hint, question):
        if self.chat is None:
            turns = [
                q + response + EXAMPLE_SEPARATOR for q, response in self._turns[hint]
            ]
            return "".join([*turns, question])
        turns = []
        for asked, response in self._turns[hint]:
            turns += [("user", asked.strip()), ("assistant", response.strip())]
        system = "" if self.few_shot or self.direct else self.task.system_text
        return self.chat.prompt([*turns, ("user", question.strip())], system)

    def prefix(self, hint: bool = False) -> str:
        """The few-shot prompt: the beginning of all prompts, before the question.

        Args:
            hint: Whether the examples show their answers as hints.
        """
        return self._prefixes[hint]

    def build(self, problem: Problem, hint: bool = False) -> str:
        """The whole prompt of a problem.

        Args:
            problem: The problem.
            hint: Whether examples and problem show their answers as hints.

        Raises:
            ValueError: if the chat template fails.
        """
        return self._render(hint, self.task.format_question(problem, hint=hint))

    def question(self, problem: Problem, hint: bool = False) -> str:
        """The prompt of a problem behind `prefix`.

        Args:
            problem: See `build`.
            hint: See `build`.

        Raises:
            ValueError: see `build`.
        """
        return self.build(problem, hint).removeprefix(self.prefix(hint))

    def response(self, rationale: str, problem: Problem) -> str:
        """The completion of a rationale, `""` for none, and the answer."""
        response = self.task.format_response(rationale, problem)
        return response if self.chat is None else self.chat.completion(response.strip())


def find_chat_template(preprocessor, chat: bool | None = None):
    """The template that prompts are made with.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        chat: Whether to use the template of its tokenizer. Defaults to yes for
            instruct models, whose end tokens include the template's end of a turn.

    Returns:
        A `ChatTemplate`, or `None` for plain text.

    Raises:
        ValueError: if `chat` is true and there is no template, or it is malformed.
    """
    tokenizer = preprocessor.tokenizer
    template = getattr(tokenizer, "chat_template", None) if chat is not False else None
    if template is None and chat:
        rule = "`None` or `False` for a model without a chat template"
        remedy = "Put a chat_template.jinja into the directory of the model."
        raise invalid("chat", rule, chat, remedy)
    if template is None or chat:
        return template
    is_end = tokenizer.token_to_id(template.end_of_turn) in tokenizer.end_token_ids
    return template if is_end else None
