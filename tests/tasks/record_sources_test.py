"""The same problems from every kind of source."""

import csv
import decimal
import json

import pytest

from star_keras import tasks
from star_keras.tasks.record_sources import existing_source, read_records

RECORDS = [
    {"prompt": "Größe, in «cm»?", "solution": "3", "topic": "size"},
    {"prompt": 'Two\nlines, "quoted"?', "solution": "b", "topic": "text"},
    {"prompt": "1 + 1?", "solution": "2", "topic": ""},
]
CHOICES = [
    {"q": "Who barks?", "options": ["cat", "dog"], "key": "b"},
    {"q": "Who purrs?", "options": ["cat", "dog", "cow"], "key": "a"},
]


def write_json_lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")


def write_csv(path, records, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        for record in records:
            is_text = {k: isinstance(v, str) for k, v in record.items()}
            writer.writerow(
                {k: v if is_text[k] else json.dumps(v) for k, v in record.items()}
            )


def write_tsv(path, records):
    write_csv(path, records, "\t")


def write_parquet(path, records):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), path)


WRITERS = {
    "jsonl": write_json_lines,
    "csv": write_csv,
    "tsv": write_tsv,
    "parquet": write_parquet,
}


@pytest.fixture(params=[*WRITERS, "files", "saved"])
def make_source(request, tmp_path, monkeypatch):
    """Writes records, and returns the argument that reads them."""

    def make(records):
        if request.param in WRITERS:
            path = tmp_path / f"problems.{request.param}"
            WRITERS[request.param](path, records)
            return str(path)
        import datasets

        monkeypatch.setattr(
            datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache", raising=True
        )
        directory = tmp_path / "dataset"
        directory.mkdir()
        if request.param == "files":
            write_json_lines(directory / "train.jsonl", records)
        else:
            rows = datasets.Dataset.from_list(records)
            datasets.DatasetDict({"train": rows}).save_to_disk(directory)
        return f"{directory}:train"

    return make


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_sources_have_the_same_problems(make_source, tmp_path):
    source = make_source(RECORDS)
    fields = {
        "question_field": "prompt",
        "answer_field": "solution",
        "class_field": "topic",
    }
    task = tasks.get("jsonl", train_path=source, eval_path=source, **fields)
    problems = task.problems("train")
    assert [(p.question, p.answer, p.problem_class) for p in problems] == [
        tuple(record.values()) for record in RECORDS
    ]
    assert len({p.id for p in problems}) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_choices_are_lists_in_all_sources(make_source):
    source = make_source(CHOICES)
    fields = {"question_field": "q", "choices_field": "options", "answer_field": "key"}
    task = tasks.get("commonsense_qa", train_path=source, eval_path=source, **fields)
    first, second = task.problems("train")
    assert (first.answer, second.answer) == ("b", "a")
    assert "(c) cow" in second.question


def test_an_integer_in_csv_counts_choices(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(
        path, [{"question": "Who barks?", "choices": ["cat", "dog"], "answer": 1}]
    )
    task = tasks.get("multiple_choice", train_path=path, eval_path=path)
    assert task.problems("train")[0].answer == "b"


@pytest.mark.parametrize(
    "name, choices, answer, message",
    [
        ("a.csv", ["2", "1"], 1, r"`answer`.*integer is one of.*'1'.*one of a, b\."),
        ("a.csv", ["cat", "dog"], 2, r"`answer`.*integer from 0 to 1.*answer=2"),
        ("a.csv", ["cat", "dog"], "-1", "`answer`.*integer from 0 to 1.*'-1'"),
        ("a.jsonl", ["cat", "dog"], "1", "`answer`.*integer from 0 to 1.*'1'"),
    ],
)
def test_an_integer_that_names_no_choice_is_refused(
    name, choices, answer, message, tmp_path
):
    path = tmp_path / name
    record = {"question": "Who barks?", "choices": choices, "answer": answer}
    WRITERS[path.suffix[1:]](path, [record])
    task = tasks.get("multiple_choice", train_path=path, eval_path=path)
    with pytest.raises(ValueError, match=message):
        task.problems("train")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_questions_alone_are_read_from_all_sources(make_source):
    source = make_source([{"prompt": r["prompt"], "solution": ""} for r in RECORDS])
    fields = {"question_field": "prompt", "answer_field": "solution"}
    task = tasks.get("jsonl", train_path=source, eval_path=source, **fields)
    questions = [(p.question, p.answer) for p in task.questions("train")]
    assert questions == [(record["prompt"], None) for record in RECORDS]
    with pytest.raises(ValueError, match="`answer`.*not blank"):
        task.problems("train")


@pytest.mark.parametrize("kind", ["parquet", "saved", "files"])
def test_short_floats_are_their_shortest_decimals(kind, tmp_path, monkeypatch):
    import datasets
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    floats = [pyarrow.float16(), pyarrow.float32(), pyarrow.float64()]
    fields = [("answer", pyarrow.float32()), ("parts", pyarrow.list_(floats[0]))]
    fields += [("of", pyarrow.struct(list(zip("abc", floats, strict=True))))]
    record = {"answer": 0.1, "parts": [0.1, None], "of": {"a": 0.3, "b": None, "c": 1}}
    table = pyarrow.Table.from_pylist([record], schema=pyarrow.schema(fields))
    source = f"{tmp_path}:train"
    if kind == "saved":
        rows = datasets.Dataset(table)
        datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path)
    else:
        parquet.write_table(table, tmp_path / "train.parquet")
    if kind == "parquet":
        source = str(tmp_path / "train.parquet")
    [(_, _, found)] = read_records(existing_source(source, "train_path"))
    assert found == record


@pytest.mark.parametrize("answer, text", [("1.50", "1.5"), ("30", "30")])
def test_decimals_are_numbers(answer, text, tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"question": "q", "answer": decimal.Decimal(answer)}])
    task = tasks.get("jsonl", train_path=path, eval_path=path)
    assert task.problems("train")[0].answer == text


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"question,answer\nq\n", r"a\.csv, line 2: 1 cells.*2.*quotes"),
        ("a.csv", b"question,answer\nq,a,b\n", r"line 2: 3 cells"),
        ("a.csv", b"question,question\n", r"line 1: a name comes twice"),
        ("a.csv", b'question,answer\n"q" x,a\n', r"line 2: not valid CSV"),
        ("a.csv", b"question,answer\n\xff,a\n", "not UTF-8"),
        ("a.csv", b"q,a\n", r"a\.csv: there is no record.*rows below the names"),
        ("a.csv", b"question,answer\n\nq,\n", r"line 3: .*`answer`.*not blank"),
        ("a.csv", b"question\nq\n", r"line 2: Missing 'answer'"),
        ("a.csv", b"question,answer\nq,a\nq,b\n", None),
        ("a.parquet", b"PAR1", r"a\.parquet: not a valid Parquet"),
        ("a.jsonl", b"{", r"line 1: not valid JSON"),
    ],
)
def test_faults_are_named_by_file_and_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    task = tasks.get("jsonl", train_path=path, eval_path=path)
    if message is None:
        assert len(task.problems("train")) == 2
        return
    with pytest.raises(ValueError, match=message):
        task.problems("train")


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write_csv(tmp_path / "a.csv", RECORDS)
    path = tmp_path / "a.csv"
    task = tasks.get("jsonl", train_path=path, eval_path=path, question_field="text")
    with pytest.raises(ValueError, match=r"line 2: .*`question_field`.*'solution'"):
        task.problems("train")


@pytest.mark.parametrize(
    "path", ["hf://name:train", "hf://a/b", "hf://a/b/c/d:train", "hf://a//:x", "hf://"]
)
def test_malformed_names_of_datasets_are_refused(path):
    with pytest.raises(ValueError, match="`train_path`.*hf://OWNER/NAME:SPLIT"):
        existing_source(path, "train_path")


def test_a_directory_needs_a_split(tmp_path):
    with pytest.raises(ValueError, match="`train_path`.*DIRECTORY:SPLIT"):
        existing_source(tmp_path, "train_path")
    with pytest.raises(FileNotFoundError, match="`train_path`"):
        existing_source(f"{tmp_path}/nowhere:train", "train_path")


def test_no_network_is_told_at_once_with_what_to_do(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    source = existing_source("hf://openai/gsm8k/main:train", "train_path")
    assert (source.name, source.configuration) == ("openai/gsm8k", "main")
    part = existing_source("hf://a/b:train[:100]", "train_path")
    assert (part.name, part.configuration, part.split) == ("a/b", "", "train[:100]")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9.*HF_HUB_OFFLINE"):
        list(read_records(source))


def test_columns_are_for_tasks_that_read_files():
    with pytest.raises(ValueError, match="`class_field`.*Leave it out"):
        tasks.get("arithmetic", class_field="topic")
