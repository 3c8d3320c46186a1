import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_keras import tasks
from star_keras.tasks.task import Problem

TASK = tasks.GSM8K()
PROBLEM = Problem(id="p", question="How many?", answer="18")


@pytest.fixture
def data_dir(tmp_path):
    for name, count in (("train", 20), ("test", 5)):
        lines = [
            {
                "question": f"{name}: what is {n} times 500?",
                "answer": f"{n}*500=<<{n}*500={n * 500}>>{n * 500}\n#### {n * 500:,}",
            }
            for n in range(1, count + 1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def test_validation_is_carved_from_train_and_test_is_the_official_one(data_dir):
    task = tasks.get("gsm8k", data_dir=data_dir, validation_problems=6)
    train, held_out, test = (task.problems(s) for s in ("train", "eval", "test"))
    assert (len(train), len(held_out), len(test)) == (14, 6, 5)
    assert not {p.id for p in train} & {p.id for p in held_out}
    assert all(p.question.startswith("train") for p in [*train, *held_out])
    assert all(p.question.startswith("test") for p in test)
    assert {p.answer for p in test} == {"500", "1000", "1500", "2000", "2500"}


def test_problems_do_not_depend_on_the_order_of_the_file(data_dir):
    first = tasks.get("gsm8k", data_dir=data_dir, validation_problems=6)
    before = [first.problems(split) for split in first.splits]
    path = data_dir / "train.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    second = tasks.get("gsm8k", data_dir=data_dir, validation_problems=6)
    assert [second.problems(split) for split in second.splits] == before


def test_own_files_need_no_carving(data_dir, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "2+2?", "answer": 4}\n')
    task = tasks.get("gsm8k", train_path=data_dir / "train.jsonl", eval_path=path)
    assert len(task.problems("train")) == 20
    assert [p.answer for p in task.problems("eval")] == ["4"]


def test_problems_held_out_of_a_file_with_questions_need_answers(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [{"question": f"{n} + {n}?", "answer": f"#### {2 * n}"} for n in range(9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = tasks.GSM8K(train_path=path, validation_problems=3)
    held_out, train = whole.problems("eval"), whole.problems("train")
    known = {p.question for p in held_out}
    assert len(known) == 3 and not known & {p.question for p in train}
    for line in lines:
        if line["question"] not in known:
            del line["answer"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = tasks.GSM8K(train_path=path, validation_problems=3)
    assert task.problems("eval") == held_out
    assert [p.answer for p in task.questions("train")] == [None] * 6
    assert [p.id for p in task.questions("train")] == [p.id for p in train]
    with pytest.raises(ValueError, match="Missing 'answer'"):
        task.problems("train")


def test_the_hint_is_the_final_answer_and_no_solution(data_dir):
    task = tasks.get("gsm8k", data_dir=data_dir, validation_problems=1)
    for problem in task.problems("train"):
        hinted = task.format_question(problem, hint=True)
        assert f"({problem.answer})" in hinted
        assert "<<" not in hinted


@pytest.mark.parametrize(
    ("completion", "strict", "flexible"),
    [
        ("3*6=<<3*6=18>>18\n#### 18", "18", "18"),
        ("#### $1,080.50.", "1080.5", "1080.5"),
        ("#### -3", "-3", "-3"),
        ("#### 18.00", "18", "18"),
        ("#### .5", "0.5", "0.5"),
        ("It is 20 - 2 = 18.", None, "18"),
        ("20-2", None, "2"),
        ("He owes $-18", None, "-18"),
        ("So it is...18", None, "18"),
        ("The answer is -18.", None, "-18"),
        ("#### 18 apples", None, "18"),
        ("#### ", None, None),
        ("", None, None),
        ("He eats no apples <<2*9=18>>", None, None),
    ],
)
def test_strict_and_flexible_reading(completion, strict, flexible):
    assert TASK.extract_answer(completion) == strict
    assert TASK.extract_answer_flexible(completion) == flexible


@given(st.decimals(-(10**9), 10**9, places=2))
def test_every_form_of_a_number_reads_the_same(number):
    plain = TASK.extract_answer(f"#### {number:f}")
    assert plain == TASK.extract_answer(f"x\n#### ${number:,f}.")
    assert float(plain) == float(number)
    assert TASK.extract_answer_flexible(f"That makes {number:,f}.") == plain


@pytest.mark.parametrize(
    ("completion", "valid"),
    [
        ("no annotation at all #### 18", True),
        ("<<48/2=24>> <<2*(3+4)=14>> <<-3+5=2>> <<3/4=3/4>>", True),
        ("<<20/3=6.67>> <<20/3=6.66>> <<7//2=3>> <<50%*10=5>> <<1,000+1=1,001>>", True),
        ("<<48/2=25>>", False),
        ("<<18/4=4>>", False),
        ("<<6.67*3=20>>", False),
        ("<<1/3=33%>>", True),
        ("<<18/4=4.50>>", True),
        ("<<20/3=6.7>> <<20/3=6.5>>", False),
        ("<<2+2=4>> <<2+2=5>>", False),
        ("<<1/0=1>>", False),
        ("<<two+2=4>>", False),
        ("<<4>>", False),
        ("<<__import__('os')=1>>", False),
        ("<<9**9**9**9=1>>", False),
    ],
)
def test_false_annotations_make_the_working_invalid(completion, valid):
    assert (TASK.working_fault(completion, PROBLEM) == "") is valid


def test_rationales_with_the_same_equations_are_the_same():
    key = TASK.rationale_key
    assert key("First <<2*3=6>>6.\n#### 6") == key("So we get <<2 * 3=6>>6\n#### 6")
    assert key("<<2*3=6>> <<6+1=7>>") != key("<<6+1=7>> <<2*3=6>>")
    assert key("Two  threes.") == key("Two threes.")
    assert key("Two threes.") != key("Three twos.")


def test_eight_examples_have_true_annotations():
    examples = TASK.few_shot_examples
    assert len(examples) == 8
    for example in examples:
        assert "<<" in example.rationale
        assert TASK.working_fault(example.rationale, example.problem) == ""


def test_what_is_no_number_is_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "Who?", "answer": "Anna"}\n')
    with pytest.raises(ValueError, match="line 1: .*Expected a number.*'Anna'"):
        tasks.get("gsm8k", train_path=path).problems("train")


def test_more_validation_than_training_problems_is_an_error(data_dir):
    task = tasks.get("gsm8k", data_dir=data_dir, validation_problems=20)
    with pytest.raises(ValueError, match="`validation_problems`.*20 training"):
        task.problems("train")
    with pytest.raises(ValueError, match="`validation_problems`.*at least 0"):
        tasks.get("gsm8k", validation_problems=-1)
