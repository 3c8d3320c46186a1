import numpy as np
import pytest

from star_keras import tasks
from star_keras.callbacks import StarIterationCallback
from star_keras.config import (
    OptimizerConfig,
    SamplingConfig,
    SelectionConfig,
    StarConfig,
    TrainingConfig,
)
from star_keras.models import load_causal_lm
from star_keras.models.hugging_face.chat_template import ChatTemplate
from star_keras.models.hugging_face.tokenizer_files import read_tokenizer
from star_keras.outer_loop.evaluation import evaluate
from star_keras.outer_loop.prompts import PromptBuilder, find_chat_template
from star_keras.sampling import ContinuousSampler, SampleRequest
from star_keras.sampling.stopping import CompletionReader
from star_keras.tasks.grading import grade
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.training import compile_model
from star_keras.training.examples import tokenize_prompts
from tests.models.hugging_face.cases import copied_with_template

# The template, and the directory of its tokenizer.
STYLES = [
    ("smollm2", "llama_tied"),
    ("qwen2", "qwen2"),
    ("llama3", "llama_untied"),
    ("gemma3", "gemma3"),
    ("mistral", "mistral"),
    ("qwen3", "qwen3"),
]


TASKS = [Doubling(), tasks.Arithmetic(train_problems=20, eval_problems=5)]


class Preprocessor:
    """What `find_chat_template` and `tokenize_prompts` ask a preprocessor for."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.add_start_token = tokenizer.start_token_id is not None


@pytest.fixture(params=STYLES, ids=lambda style: style[0])
def preprocessor(request, tmp_path):
    directory = copied_with_template(*reversed(request.param), tmp_path)
    return Preprocessor(read_tokenizer(directory, {}))


def texts_of(task, hint, problem):
    """The texts of all turns, in their order."""
    texts = []
    for example in task.few_shot_examples:
        texts.append(task.format_question(example.problem, hint=hint).strip())
        response = task.format_response(example.rationale, example.problem)
        texts.append(response.strip())
    return [*texts, task.format_question(problem, hint=hint).strip()]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_worked_examples_are_turns_that_all_prompts_share(task, preprocessor):
    chat = find_chat_template(preprocessor)
    prompts = PromptBuilder(task, chat=chat)
    for hint in (False, True):
        for problem in task.problems("train")[:3]:
            texts = texts_of(task, hint, problem)
            roles = ["user", "assistant"] * len(texts)
            turns = list(zip(roles, texts, strict=False))
            prompt = prompts.build(problem, hint)
            assert prompt == chat.prompt(turns)
            prefix = prompts.prefix(hint)
            assert prompt.startswith(prefix)
            assert prefix.count(texts[1]) >= 1
            assert len(prefix) > sum(map(len, texts[:-1]))
            rest = prompt.removeprefix(prefix)
            assert rest.startswith(texts[-1])
    assert prompts.prefix(True) != prompts.prefix(False)


def test_without_worked_examples_a_system_text_comes_first(preprocessor):
    task, chat = Doubling(), find_chat_template(preprocessor)
    problem = task.problems("train")[7]
    prompt = PromptBuilder(task, few_shot=False, chat=chat).build(problem)
    question = task.format_question(problem).strip()
    assert prompt == chat.prompt([("user", question)], task.system_text)
    assert 'End with "The answer is"' in prompt
    direct = PromptBuilder(task, few_shot=False, direct=True, chat=chat)
    assert direct.build(problem) == chat.prompt([("user", question)])


def test_the_start_token_is_the_one_of_the_template(preprocessor):
    chat = find_chat_template(preprocessor)
    prompt = PromptBuilder(Doubling(), chat=chat).build(Doubling().problems("eval")[0])
    (ids,) = tokenize_prompts(preprocessor, [prompt], add_start_token=False)
    start = preprocessor.tokenizer.start_token_id
    assert ids == preprocessor.tokenizer(prompt).tolist()
    assert ids.count(start) == prompt.count("<s>") + prompt.count("<bos>") + (
        prompt.count("<|begin_of_text|>")
    )


def test_the_default_is_chat_for_instruct_models_alone(tmp_path):
    directory = copied_with_template("qwen2", "qwen2", tmp_path)
    tokenizer = read_tokenizer(directory, {})
    assert isinstance(find_chat_template(Preprocessor(tokenizer)), ChatTemplate)
    assert find_chat_template(Preprocessor(tokenizer), False) is None
    tokenizer.end_token_ids = (tokenizer.token_to_id("<|endoftext|>"),)  # a base model
    assert find_chat_template(Preprocessor(tokenizer)) is None
    assert find_chat_template(Preprocessor(tokenizer), True) is tokenizer.chat_template


def test_chat_without_a_template_is_an_error_that_says_what_to_do(tmp_path):
    directory = copied_with_template("qwen2", "qwen2", tmp_path)
    (directory / "chat_template.jinja").unlink()
    preprocessor = Preprocessor(read_tokenizer(directory, {}))
    assert find_chat_template(preprocessor) is None
    with pytest.raises(ValueError, match="`chat`.*chat_template.jinja"):
        find_chat_template(preprocessor, True)


# === Thoughts ===


@pytest.mark.parametrize(
    "completion, opened, answer, verdict",
    [
        ("<think>The answer is 1.</think> The answer is 2.", False, "2", "correct"),
        ("<think>The answer is 2.</think> The answer is 1.", False, "1", "incorrect"),
        ("<think>The answer is 2.", False, None, "unparsed"),
        ("The answer is 2. <think>Or not", False, None, "unparsed"),
        ("<think>The answer is 2.</think> No idea", False, None, "unparsed"),
        ("Hm, 1.</think>\n\nThe answer is 2.", True, "2", "correct"),
        ("Hm. The answer is 2.", True, None, "unparsed"),
        ("Hm. The answer is 2.", False, "2", "correct"),
    ],
)
def test_the_answer_is_read_behind_the_thoughts(completion, opened, answer, verdict):
    task = Doubling()
    graded = grade(task, task.problems("train")[1], completion, opened=opened)
    assert graded[:2] == (answer, verdict)


def test_a_template_that_opens_thoughts_leaves_unfinished_ones_unread():
    template = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<e>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>\n{% endif %}",
        special_tokens=["<e>"],
    )
    prompts = PromptBuilder(Doubling(), few_shot=False, chat=template)
    texts = {
        "double-100": "100 + 100 = 200. The answer is 200.",
        "double-101": "101 + 101 = 202.</think>The answer is 202.",
    }
    sampler = ScriptedSampler(lambda request: texts[request.name])
    problems = Doubling(held_out=2).problems("eval")
    metrics, samples = evaluate(prompts, problems, sampler)
    assert all(prompt.endswith("<think>\n") for prompt in sampler.prompts)
    assert [sample.verdict for sample in samples] == ["unparsed", "correct"]


# === The loop ===


def test_the_end_of_the_turn_ends_a_completion(tmp_path):
    directory = copied_with_template("gemma3", "gemma3", tmp_path)
    model = load_causal_lm(directory)
    tokenizer = model.preprocessor.tokenizer
    tokenizer.end_token_ids = (tokenizer.end_token_id,)  # the directory forgot one
    prompts = PromptBuilder(
        Doubling(), few_shot=False, chat=find_chat_template(model.preprocessor, True)
    )
    prompt = prompts.build(Doubling().problems("train")[0])
    request = SampleRequest(prompt=prompt, name="a", add_start_token=False)
    sampler = ContinuousSampler(model, max_new_tokens=12, batch_size=2)
    (ids,) = sampler.tokenize([request])
    assert ids == tokenizer(prompt).tolist()
    assert ids.count(tokenizer.start_token_id) == 1
    ids = tokenizer("4" + prompts.stop[0] + "5")
    assert CompletionReader(tokenizer, 12).read(ids, prompts.stop).text == "4"


def test_rationales_are_trained_on_as_turns_up_to_the_end_of_the_turn(tmp_path):
    directory = copied_with_template("gemma3", "gemma3", tmp_path)
    model = load_causal_lm(directory)
    compile_model(model, OptimizerConfig(learning_rate=1e-3))
    task = Doubling(train=6)

    def solve(request):
        number = int(request.name.removeprefix("double-"))
        hint = f"({2 * number})" in request.prompt.rpartition("<start_of_turn>user")[2]
        right = number % 2 == 0 or hint
        thought = f"<think>\n{number} + {number}\n</think>\n\n"
        return f"{thought}The answer is {2 * number if right else 'odd'}."

    sampler = ScriptedSampler(solve)
    config = StarConfig(
        selection=SelectionConfig(weigh_by_problem=True),
        training=TrainingConfig(sequence_length=256, start_steps=1, batch_size=2),
    )
    star = StarIterationCallback(
        model, task, tmp_path / "run", config=config, sampler=sampler
    )
    star.run.open({})
    try:
        training_set = star.loop.prepare(1)
    finally:
        star.run.close()
    assert len(training_set.examples) == 6
    tokenizer = model.preprocessor.tokenizer
    plain = PromptBuilder(task, few_shot=False, chat=tokenizer.chat_template)
    shown = {tuple(e.prompt_ids.tolist()): e for e in training_set.examples}
    for number, problem in enumerate(task.problems("train")):
        prompt = plain.build(problem)
        example = shown[tuple(tokenizer(prompt).tolist())]  # the hint is stripped
        assert tokenizer.detokenize(example.response_ids) == (
            f"<think>\n{number} + {number}\n</think>\n\nThe answer is {2 * number}."
            "<end_of_turn>"
        )
        assert np.sum(example.prompt_ids == tokenizer.start_token_id) == 1
    hinted = [p for p in sampler.prompts if "twice 50? (100)" in p]
    assert len(hinted) == 3


def test_a_row_as_long_as_the_longest_turns_is_accepted(tmp_path):
    directory = copied_with_template("gemma3", "gemma3", tmp_path)
    model = load_causal_lm(directory)
    assert model.preprocessor.add_start_token  # that of the template is the only one
    compile_model(model, OptimizerConfig(learning_rate=1e-3))
    task, tokenizer = Doubling(train=1, held_out=1), model.preprocessor.tokenizer
    chat = tokenizer.chat_template
    prompts = PromptBuilder(task, few_shot=False, direct=True, chat=chat)
    texts = prompts.build(task.problems("train")[0]), "The answer is 0.<end_of_turn>"
    longest = sum(len(tokenizer(text)) for text in texts) - 1

    def make_star(length):
        config = StarConfig(
            sampling=SamplingConfig(direct=True, few_shot=False),
            training=TrainingConfig(sequence_length=length, batch_size=2),
        )
        sampler = ScriptedSampler(str)
        StarIterationCallback(
            model, task, tmp_path / "run", config=config, sampler=sampler
        )

    make_star(longest)
    with pytest.raises(ValueError, match=f"`sequence_length`.* {longest}"):
        make_star(longest - 1)


def test_known_answers_are_trained_on_as_the_assistant_writes_them(tmp_path):
    directory = copied_with_template("qwen3", "qwen3", tmp_path)
    model = load_causal_lm(directory)
    compile_model(model, OptimizerConfig(learning_rate=1e-3))
    config = StarConfig(
        sampling=SamplingConfig(direct=True, few_shot=False),
        training=TrainingConfig(sequence_length=256, start_steps=1, batch_size=2),
    )
    star = StarIterationCallback(
        model,
        Doubling(train=2),
        tmp_path / "run",
        config=config,
        sampler=ScriptedSampler(str),
    )
    star.run.open({})
    try:
        training_set = star.loop.prepare(1)
    finally:
        star.run.close()
    tokenizer = model.preprocessor.tokenizer
    assert [tokenizer.detokenize(e.response_ids) for e in training_set.examples] == [
        f"<think>\n\n</think>\n\nThe answer is {answer}.<|im_end|>" for answer in (0, 2)
    ]
