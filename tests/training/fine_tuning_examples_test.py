import json

import numpy as np
import pytest
import tensorflow as tf
import tokenizers

from star_keras import testing
from star_keras.models import HuggingFaceTokenizer
from star_keras.training import fine_tuning_examples
from star_keras.training.fine_tuning_examples import (
    pieces,
    read_fine_tuning_examples,
)

QUESTION, ANSWER = ({"role": role, "content": "x"} for role in ("user", "assistant"))
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Preprocessor:
    def __init__(self, tokenizer, add_start_token=False):
        self.tokenizer, self.add_start_token = tokenizer, add_start_token


@pytest.fixture(scope="module")
def plain():
    return Preprocessor(testing.byte_tokenizer())


@pytest.fixture(scope="module")
def chat():
    """Bytes, a start token, and a chat template."""
    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<s>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    config = json.dumps({"chat_template": TEMPLATE, "eos_token": "<|end|>"})
    return Preprocessor(
        HuggingFaceTokenizer(
            tokenizer,
            end_token_ids=[0],
            start_token_id=4,
            files={"tokenizer_config.json": config},
        ),
        add_start_token=True,
    )


def read(path, preprocessor, max_length=64):
    return list(
        read_fine_tuning_examples(
            path,
            preprocessor,
            max_length=max_length,
            vocabulary_size=258,
            argument="train_path",
        )
    )


def texts(preprocessor, examples):
    decode = preprocessor.tokenizer.detokenize
    return [
        tuple(decode(ids.tolist()) for ids in (e.prompt_ids, e.response_ids))
        for e in examples
    ]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_rows(path, *rows, feature="text", options=None):
    with tf.io.TFRecordWriter(str(path), options=options) as writer:
        for row in rows:
            ids = tf.train.Feature(int64_list=tf.train.Int64List(value=row))
            features = tf.train.Features(feature={feature: ids})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return path


def test_every_token_of_a_document_but_its_first_is_learned_once(plain, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0123456789")
    examples = read(path, plain, max_length=4)
    assert [len(example) for example in examples] == [4, 4, 2]
    found = texts(plain, examples)
    assert found == [("0", "1234"), ("4", "5678"), ("8", "9<|endoftext|>")]


def test_a_start_token_lets_the_first_token_be_learned(chat, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"text": "ab"}, {"text": "cd"})
    found = texts(chat, read(path, chat))
    assert found == [("<s>", "ab<|end|>"), ("<s>", "cd<|end|>")]


def test_of_a_pair_the_response_is_learned(plain, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "1+1=", "response": 2})
    assert texts(plain, read(path, plain)) == [("1+1=", "2<|endoftext|>")]


def test_each_turn_of_the_assistant_is_an_example(chat, tmp_path):
    turns = [("system", "S"), ("user", "a"), ("assistant", "b")]
    turns += [("user", "<|end|>"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    path = write_lines(tmp_path / "a.jsonl", {"messages": messages})
    first = "<|system|>S<|end|><|user|>a<|end|><|assistant|>"
    second = f"{first}b<|end|><|user|>< |end|><|end|><|assistant|>"  # escaped
    found = texts(chat, read(path, chat, max_length=128))
    assert found == [(first, "b<|end|>"), (second, "d<|end|>")]


def test_a_completion_is_learned_as_a_response(plain, tmp_path):
    records = [{"prompt": "1+1=", name: 2} for name in ("completion", "response")]
    records[0]["response"] = None  # as in a table
    path = write_lines(tmp_path / "a.jsonl", *records)
    assert texts(plain, read(path, plain)) == [("1+1=", "2<|endoftext|>")] * 2


def test_empty_lists_stand_for_absent_fields(chat, tmp_path):
    record = {"messages": [QUESTION, ANSWER]}
    path = write_lines(tmp_path / "a.jsonl", record)
    filled = record | {"prompt": [], "completion": [], "text": ""}
    filled_path = write_lines(tmp_path / "b.jsonl", filled)
    assert texts(chat, read(filled_path, chat)) == texts(chat, read(path, chat))


def test_a_completion_of_messages_is_learned_behind_those_of_its_prompt(chat, tmp_path):
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    messages = [
        {"role": role, "content": content}
        for role, content in zip(roles, "Sabcdef", strict=True)
    ]
    path = write_lines(tmp_path / "a.jsonl", {"messages": messages})
    turns = texts(chat, read(path, chat, max_length=256))
    assert [response for _, response in turns] == ["b<|end|>", "d<|end|>", "f<|end|>"]
    for start, count in ((6, 1), (4, 2), (3, 2), (1, 3)):
        record = {"prompt": messages[:start], "completion": messages[start:]}
        path = write_lines(tmp_path / "b.jsonl", record)
        assert texts(chat, read(path, chat, max_length=256)) == turns[-count:]


def messages_of(**keys):
    """A question and an answer, whose message has further keys."""
    answer = {"role": "assistant", "content": "b", **keys}
    return {"messages": [{"role": "user", "content": "a"}, answer]}


def test_turns_of_weight_0_are_not_learned(chat, tmp_path):
    first, second = messages_of(weight=0), messages_of(weight=1.0, tool_calls=None)
    record = {"messages": first["messages"] + second["messages"], "id": 7}
    path = write_lines(tmp_path / "a.jsonl", record)
    before = "<|user|>a<|end|><|assistant|>"
    found = texts(chat, read(path, chat, max_length=128))
    assert found == [(f"{before}b<|end|>{before}", "b<|end|>")]
    path = write_lines(tmp_path / "b.jsonl", first, first)
    with pytest.raises(ValueError, match="b.jsonl: .*none. Write .*weight 0 is no"):
        read(path, chat)


def test_values_may_be_arrays(chat, tmp_path, monkeypatch):
    """As those of a dataset with the format of NumPy."""
    path = write_lines(tmp_path / "a.jsonl", {})

    def found(record):
        records = [("row 1", None, record)]
        monkeypatch.setattr(fine_tuning_examples, "read_records", lambda _: records)
        return len(read(path, chat))

    none, two = np.zeros(0), np.array([0, 1])
    weight = np.float32(1)
    assert found(messages_of(weight=weight, tool_calls=none) | {"tools": none}) == 1
    for record, message in [
        (messages_of(weight=two), r"`messages\[1\].weight`. Expected 0 or 1"),
        (messages_of(tool_calls=two), r"`messages\[1\].tool_calls`. Expected only"),
        (messages_of() | {"tools": two}, "`tools`. Expected no such field"),
        (messages_of() | {"text": two}, "Expected the fields"),
        ({"messages": two}, "`messages`. Expected a list"),
    ]:
        with pytest.raises(ValueError, match=f"row 1: .*{message}"):
            found(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (messages_of(weight=0.5), r"`messages\[1\].weight`. Expected 0 or 1"),
        (
            messages_of(tool_calls=[{}]),
            r"`messages\[1\].tool_calls`. Expected only `role`, `content` and `weight` "
            "in a message of the assistant",
        ),
        (messages_of(name="x"), r"`messages\[1\].name`. Expected only"),
        ({"messages": [{"role": "user", "weight": 1}]}, "`messages`. Expected a list"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a", "weight": 1},
                    *messages_of()["messages"][1:],
                ]
            },
            r"`messages\[0\].weight`. Expected only `role` and `content` in a message "
            "of the user",
        ),
        (messages_of() | {"tools": [{}]}, '`tools`. Expected no such .*"messages"'),
        (messages_of() | {"response": "b"}, '`response`. Expected .*"messages"'),
        ({"text": "a", "response": "b"}, '`response`. Expected .*beside "text"'),
        ({"text": "a", "completion": "b"}, '`completion`. Expected .*"text"'),
        (
            {"prompt": "a", "response": "b", "completion": "c"},
            '`completion`. Expected .*beside "prompt"',
        ),
        ({"completion": "b"}, "Expected the fields .*: .'completion'"),
        ({"prompt": "a", "completion": " "}, "`completion`. Expected a text that is"),
        ({"prompt": "a", "completion": None}, "`completion`. Expected a text that is"),
        ({"prompt": "a", "completion": True}, "`completion`. Expected a text or"),
        (
            {"prompt": "a", "completion": [ANSWER]},
            "`prompt`. Expected a list of .*Received: .*'a'. Use messages in both",
        ),
        ({"prompt": [QUESTION], "completion": "b"}, "`completion`. Expected a list"),
        ({"prompt": [QUESTION], "completion": ANSWER}, "`completion`. Expected a list"),
        ({"prompt": [QUESTION], "completion": []}, "`completion`. Expected a list"),
        ({"prompt": [QUESTION]}, "`prompt`. Expected a text or a finite number"),
        (
            {"prompt": [QUESTION, ANSWER], "completion": [ANSWER]},
            r"`prompt \+ completion`. Expected .*'user', 'assistant', 'assistant'",
        ),
        (
            {"prompt": [QUESTION], "completion": [ANSWER | {"weight": 2}]},
            r"`completion\[0\].weight`. Expected 0 or 1",
        ),
        (
            {"prompt": [QUESTION], "completion": [ANSWER], "tools": [{}]},
            '`tools`. Expected no such .*"prompt"',
        ),
    ],
)
def test_fields_that_would_be_ignored_are_refused(chat, tmp_path, record, message):
    path = write_lines(tmp_path / "a.jsonl", {"text": "ab", "id": 1}, record)
    with pytest.raises(ValueError, match=f"line 2: .*{message}"):
        read(path, chat)


def test_kinds_may_alternate_within_a_file(plain, tmp_path):
    pair = {"text": None, "prompt": "p", "response": "r"}  # as in a table
    path = write_lines(tmp_path / "a.jsonl", {"text": "ab"}, pair, {"text": "cd"})
    found = [prompt for prompt, _ in texts(plain, read(path, plain))]
    assert found == ["a", "p", "c"]


def test_rows_of_an_index_are_those_of_its_files(plain, tmp_path):
    write_rows(tmp_path / "a.tfrecords", [1, 2, 3, 0, 4], [5, 6])
    zlib = tf.io.TFRecordOptions(compression_type="ZLIB")
    write_rows(tmp_path / "b_zstd.tfrecords", [7, 8], options=zlib)
    index = tmp_path / "train.index"
    index.write_text("a.tfrecords\n\nb_zstd.tfrecords\n")
    found = [
        [*example.prompt_ids, *example.response_ids]
        for example in read(index, plain, max_length=3)
    ]
    assert found == [[1, 2, 3, 0], [0, 4], [5, 6], [7, 8]]


def test_pieces_overlap_by_one_token():
    ids = np.arange(23)
    found = list(pieces(ids, 5))
    assert np.concatenate([p.response_ids for p in found]).tolist() == [*range(1, 23)]
    assert all(p.prompt_ids[0] + 1 == p.response_ids[0] for p in found)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"question": "q"},
            r"line 1: Expected the fields .*: .'question'",
        ),
        ({"text": "a", "prompt": "b"}, "line 1: Expected the fields"),
        ({"text": " "}, "line 1: .*`text`. Expected a text that is not blank"),
        ({"prompt": "a"}, "line 1: Missing 'response'"),
        (
            {"prompt": "a", "response": "b" * 99},
            "line 1: .*100 tokens. Expected at",
        ),
        (
            {"messages": []},
            "line 1: .*`messages`. Expected a model with",
        ),
        (
            {"prompt": [QUESTION], "completion": [ANSWER]},
            "line 1: .*`prompt`. Expected a model with .*, or use texts in the fields",
        ),
    ],
)
def test_errors_name_the_line(plain, tmp_path, record, message):
    path = write_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(ValueError, match=message):
        read(path, plain)


@pytest.mark.parametrize("roles", ["", "s", "a", "u", "uu", "aua", "uau", "usa"])
def test_turns_must_alternate(chat, tmp_path, roles):
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": names[role], "content": "x"} for role in roles]
    path = write_lines(tmp_path / "a.jsonl", {"messages": messages})
    with pytest.raises(ValueError, match="line 1: .*`messages`. Expected a list of"):
        read(path, chat)


def test_other_errors_name_the_file(plain, tmp_path):
    with pytest.raises(FileNotFoundError, match="`train_path`.*of text.*is no file"):
        read(tmp_path / "a.txt", plain)
    for name in ("a.txt", "a.jsonl", "a.tfrecords", "a.index"):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"(?i){name}: .*expected"):
            read(tmp_path / name, plain)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="a.txt: not UTF-8"):
        read(tmp_path / "a.txt", plain)
    (tmp_path / "a.index").write_text("b.tfrecords\n")
    with pytest.raises(FileNotFoundError, match="a.index lists the file .*b.tfrecords"):
        read(tmp_path / "a.index", plain)


def test_errors_name_the_row(plain, tmp_path):
    path = tmp_path / "a.tfrecords"
    for row, message in (([1], "a row of one token"), ([1, 258], "the token id 258")):
        write_rows(path, [1, 2], row)
        with pytest.raises(ValueError, match=f"row 2: {message}"):
            read(path, plain)
    write_rows(path, [1, 2], feature="ids")
    with pytest.raises(ValueError, match=r"row 1: .*features \['ids'\]"):
        read(path, plain)
    write_rows(path, [1, 2], [3, 4])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="row 2: no TFRecord"):
        read(path, plain)
