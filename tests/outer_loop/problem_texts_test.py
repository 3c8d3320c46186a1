import json

from star_keras.outer_loop.problem_texts import write_problem_texts
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.testing import Doubling
from star_keras.utils.json_lines import read_json_lines

TASK = Doubling(train=2, held_out=1)
PROBLEMS = {split: TASK.problems(split) for split in ("train", "eval")}


def written(path, hinted=True, **kwargs):
    prompts = PromptBuilder(TASK, **kwargs)
    write_problem_texts(path, PROBLEMS, prompts, hinted)
    texts = json.loads((path / "prompts.json").read_text())
    return prompts, texts, read_json_lines(path / "problems.jsonl")


def test_worked_examples_and_prompt_are_the_whole_prompt(tmp_path):
    prompts, texts, lines = written(tmp_path)
    assert len(lines) == 3
    for line, problem in zip(lines, sum(PROBLEMS.values(), []), strict=True):
        assert line["problem"] == problem.id
        assert line["question"] == problem.question
        assert texts["few_shot"] + line["prompt"] == prompts.build(problem)
        if line["split"] == "train":
            hinted = texts["few_shot_hinted"] + line["hinted_prompt"]
            assert hinted == prompts.build(problem, hint=True)
        else:
            assert line["hinted_prompt"] is None
    assert texts["answer_marker"] == "The answer is"


def test_a_run_without_hints_has_no_hinted_prompts(tmp_path):
    _, texts, lines = written(tmp_path, hinted=False, few_shot=False)
    assert {line["hinted_prompt"] for line in lines} == {None}
    assert texts["few_shot"] == ""


def test_files_are_written_once(tmp_path):
    written(tmp_path)
    (tmp_path / "problems.jsonl").write_text("")
    assert written(tmp_path)[2] == []
