"""Ask a model by hand, and see the answer token by token.

    python -m experiments.generate --preset=hf://HuggingFaceTB/SmolLM2-135M-Instruct
    python -m experiments.generate --preset=runs/cpu/preset --task=arithmetic \\
        --nofew_shot
    echo "3 5 + 9 1" | python -m experiments.generate --task=arithmetic --nofew_shot

Each line is a prompt, outer blanks included. An instruct model is talked to: in a
terminal it gets the earlier turns too, and an empty line begins anew; in a pipe each
line is alone. With `--task` a line is a question in the task's prompt, and an empty
line takes the next held-out problem, whose answer is graded. A line of JSON,
`{"question": "3 + 4", "answer": "7"}`, is a problem that is graded too. In a terminal
Ctrl-C ends an answer, and Ctrl-D the program.
"""

import dataclasses
import itertools
import sys

from absl import flags

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, load_libraries
from experiments.task_settings import TaskSettings
from star_keras.config import RunConfig, SamplingConfig

SETTINGS = (ModelSettings, TaskSettings, SamplingConfig, RunConfig)
define_flags(ModelSettings, TaskSettings)
define_flags(
    SamplingConfig,
    only=("max_new_tokens", "temperature", "top_p", "few_shot", "direct", "chat"),
)
define_flags(RunConfig, only=("seed",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What the model is asked.

    Attributes:
        prompt: The whole prompt.
        line: What was typed, if the model is talked to.
        problem: The `Problem` behind it, if its answer is known.
    """

    prompt: str
    line: str = ""
    problem: object = None


class TaskQuestions:
    """Questions in the prompt of a task.

    Args:
        prompts: A `PromptBuilder`.
    """

    def __init__(self, prompts):
        self.prompts, self.task = prompts, prompts.task
        self.stop = prompts.stop
        self._held_out = None

    def make(self, line: str) -> Question:
        """The question of a line.

        Raises:
            ValueError: if the line is JSON, but no problem of the task.
        """
        from star_keras.tasks.task import Problem
        from star_keras.utils.json_lines import parse_json_object

        line = line.strip()
        if not line:
            if self._held_out is None:
                self._held_out = itertools.cycle(self.task.problems("eval"))
            problem = next(self._held_out)
            print(problem.question)
        elif line.startswith("{"):
            problem = self.task.problem_of(
                parse_json_object(line.encode(), "The problem"), "asked"
            )
        else:
            asked = Problem(id="asked", question=line, answer=None)
            return Question(prompt=self.prompts.build(asked))
        return Question(prompt=self.prompts.build(problem), problem=problem)

    def answered(self, question: Question, completion: str) -> str:
        """Take an answer. Returns the verdict, empty if the right one is not known."""
        from star_keras.tasks.grading import grade

        if question.problem is None:
            return ""
        opened = self.prompts.opens_thoughts
        found = grade(self.task, question.problem, completion, opened=opened)
        if found.verdict == "correct":
            return "[correct]"
        return f"[{found.verdict}: expected {question.problem.answer}]"


class PlainQuestions:
    """Lines as prompts."""

    stop = ()

    def make(self, line: str) -> Question:
        """The question of a line.

        Raises:
            ValueError: if the line is empty.
        """
        if not line:
            raise ValueError("The line is empty. Expected a prompt.")
        return Question(prompt=line)

    def answered(self, question: Question, completion: str) -> str:
        """Take an answer. Returns `""`: nothing is graded."""
        return ""


class Conversation:
    """Lines as what the user says to an instruct model.

    Args:
        chat: A `ChatTemplate`.
        remembers: Whether the model gets the earlier turns too.
    """

    def __init__(self, chat, remembers: bool):
        self._chat, self._remembers = chat, remembers
        self._turns = []
        self.stop = (chat.end_of_turn,)

    def make(self, line: str) -> Question:
        """The question of a line.

        Raises:
            ValueError: if the line is empty, which forgets the earlier turns, or the
                template fails.
        """
        line = line.strip()
        if not line:
            self._turns = []
            raise ValueError(
                "A new conversation begins."
                if self._remembers
                else "The line is empty. Expected a prompt."
            )
        return Question(
            prompt=self._chat.prompt([*self._turns, ("user", line)]), line=line
        )

    def answered(self, question: Question, completion: str) -> str:
        """Take an answer. Returns `""`: nothing is graded."""
        if self._remembers:
            self._turns += [("user", question.line), ("assistant", completion)]
        return ""


def answer(engine, request, *, stop, settings, tokenizer) -> str:
    """Print a completion as it comes, and return it.

    Args:
        engine: A `ContinuousEngine` with settings by request.
        request: The `SampleRequest`.
        stop: Strings that end the completion.
        settings: Its `RequestSettings`.
        tokenizer: The tokenizer of the model.
    """
    from star_keras.sampling.text_stream import TextStream

    stream = TextStream(tokenizer, stop)

    def show(_, token_ids, *__):
        print(stream.add(token_ids), end="", flush=True)

    settings = dataclasses.replace(settings, on_tokens=show)
    engine.add_request("asked", request, stop=stop, settings=settings)
    while not (done := engine.step()):
        pass
    ((_, completion),) = done
    print(stream.finish(completion.text), flush=True)
    return completion.text


def lines(is_terminal: bool):
    """Numbered lines of standard input without their ends; asked for in a terminal."""
    for number in itertools.count():
        try:
            line = input("\n> ") if is_terminal else input()
        except EOFError:
            return
        yield number, line


def main(argv):
    model, task, sampling, run = from_flags(argv, *SETTINGS)
    with_task = flags.FLAGS["task"].present
    task = task.make() if with_task else None
    is_terminal = sys.stdin.isatty()
    # A line that is not UTF-8 is one error, and the next one is read.
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if is_terminal:
        say_hello(f"answers of {model.preset}; Ctrl-D ends")
    load_libraries()
    from star_keras.outer_loop.prompts import PromptBuilder, find_chat_template
    from star_keras.sampling import ContinuousSampler, RequestSettings, SampleRequest
    from star_keras.utils.records import is_text

    causal_lm = model.load()
    chat = find_chat_template(causal_lm.preprocessor, sampling.chat)
    if with_task:
        few_shot, direct = sampling.few_shot, sampling.direct
        questions = TaskQuestions(
            PromptBuilder(task, few_shot=few_shot, direct=direct, chat=chat)
        )
    elif chat is not None:
        questions = Conversation(chat, remembers=is_terminal)
    else:
        questions = PlainQuestions()
    sampler = ContinuousSampler(
        causal_lm,
        max_new_tokens=sampling.max_new_tokens,
        batch_size=1,
        seed=run.seed,
    )
    settings = RequestSettings(
        temperature=sampling.temperature, top_p=sampling.top_p or 1.0
    )

    def ask(engine, number, line):
        if not is_text(line):
            received = line.encode("utf-8", "surrogateescape")
            raise ValueError(
                f"not UTF-8. Expected UTF-8. Received: {received!r:.200}. Convert the "
                "input, e.g. by `iconv -f LATIN1 -t UTF-8`."
            )
        question = questions.make(line)
        request = SampleRequest(
            prompt=question.prompt,
            name=f"line {number + 1}",
            seed=(number,),
            add_start_token=chat is None,
        )
        text = answer(
            engine,
            request,
            stop=questions.stop,
            settings=settings,
            tokenizer=sampler.tokenizer,
        )
        if verdict := questions.answered(question, text):
            print(verdict, flush=True)

    def ask_all(numbered) -> bool:
        """Whether all lines are answered."""
        right = True
        with sampler.engine(settings_by_request=True) as engine:
            for number, line in numbered:
                try:
                    ask(engine, number, line)
                except ValueError as error:
                    right = False
                    place = "" if is_terminal else f"line {number + 1}: "
                    print(f"{place}{error}", file=sys.stderr)
        return right

    numbered = lines(is_terminal)
    while True:
        try:
            sys.exit(0 if ask_all(numbered) or is_terminal else 1)
        except KeyboardInterrupt:
            print()
            if not is_terminal:
                sys.exit(130)
            # The engine has ended within a step; the next question gets another.


if __name__ == "__main__":
    run_main(main)
