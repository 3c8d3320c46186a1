import pytest

from star_keras.outer_loop.problems import checked_problems
from star_keras.tasks.grading import grade


@pytest.mark.parametrize("labels", ["ABCD", "1234", "wxyz"])
def test_a_choice_of_any_label_is_a_letter(make_file_task, labels):
    choices = {"text": ["ice", "fire", "sand", "fog"], "label": list(labels)}
    record = {"id": "Mercury_1", "question": "What burns?", "choices": choices}
    task = make_file_task("multiple_choice", {**record, "answerKey": labels[1]})
    (problem,) = checked_problems(task, "train")
    assert (problem.id, problem.answer) == ("Mercury_1", "b")
    right = task.format_response("It is hot.", problem)
    assert right == " It is hot. Therefore, the answer is fire (b)."
    assert grade(task, problem, right) == ("b", "correct", "")
    assert "(b) fire (CORRECT)\n" in task.format_question(problem, hint=True)


def test_columns_of_other_data_sets_are_named(make_file_task):
    record = {"question_stem": "Who barks?", "options": ["cat", "dog"], "key": 1}
    task = make_file_task(
        "multiple_choice",
        {**record, "topic": "animals"},
        question_field="question_stem",
        answer_field="key",
        choices_field="options",
        class_field="topic",
    )
    (problem,) = checked_problems(task, "eval")
    assert (problem.answer, problem.problem_class) == ("b", "animals")


@pytest.mark.parametrize(
    ("conclusion", "fault"),
    [
        ("fire (b).", ""),
        ("the Fire (b).", ""),
        ('the "**fire**" (b).', ""),
        ("ice (b).", "the words 'ice' are not 'fire'"),
        ("fire (CORRECT) (b).", "the words 'fire (correct)' are not 'fire'"),
        ("(b).", "the words '' are not 'fire'"),
        ("b) fire.", "the words 'b) fire' are not 'fire'"),
    ],
)
def test_working_needs_the_choice_of_the_letter_in_words(
    make_file_task, conclusion, fault
):
    record = {"question": "What burns?", "choices": ["ice", "fire"], "answer": "b"}
    task = make_file_task("multiple_choice", record)
    (problem,) = checked_problems(task, "train")
    completion = f" It is hot. Therefore, the answer is {conclusion}"
    assert grade(task, problem, completion).verdict == "correct"
    graded = grade(task, problem, completion, check_working=True)
    assert graded == ("b", "invalid_working" if fault else "correct", fault)
    task.answer_marker = "I choose"
    completion = completion.replace("the answer is", "I choose")
    assert grade(task, problem, completion, check_working=True) == graded


def test_a_record_with_the_right_choice_twice_is_named(make_file_task):
    record = {"question": "Who barks?", "choices": ["dog", " dog", "cat"]}
    task = make_file_task("multiple_choice", {**record, "answer": "a"})
    rule = r"jsonl, line 1: .*`choices`. Expected the right choice 'dog' once"
    with pytest.raises(ValueError, match=rule):
        task.problems("train")
    task = make_file_task("multiple_choice", {**record, "answer": "c"})
    assert task.problems("train")[0].answer == "c"
    task = make_file_task("commonsense_qa", {**record, "answer": "a"})
    assert task.problems("train")[0].answer == "a"
