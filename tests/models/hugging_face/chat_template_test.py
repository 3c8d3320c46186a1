import json

import pytest

from star_keras.models.hugging_face.chat_template import (
    ChatTemplate,
    read_chat_template,
)
from star_keras.models.hugging_face.tokenizer_files import (
    read_tokenizer,
    write_tokenizer,
)
from tests.models.hugging_face.cases import FIXTURES, TEMPLATES

EXPECTED = json.loads((TEMPLATES / "expected.json").read_text("utf-8"))
TOKENIZERS = {line["template"]: line["tokenizer"] for line in EXPECTED}


def with_template(name):
    """The tokenizer of a directory, with a template in its files."""
    directory = FIXTURES / TOKENIZERS[name]
    config = json.loads((directory / "config.json").read_text("utf-8"))
    tokenizer = read_tokenizer(directory, config)
    text = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    tokenizer.files["chat_template.jinja"] = text
    return tokenizer


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_and_ids_are_those_of_transformers(name):
    tokenizer = with_template(name)
    for line in EXPECTED:
        if line["template"] != name:
            continue
        arguments = line["messages"], line["add_generation_prompt"]
        if "text" not in line:
            with pytest.raises(ValueError, match="alternation"):
                tokenizer.chat_template.render(*arguments)
            continue
        text = tokenizer.chat_template.render(*arguments)
        assert text == line["text"]
        if "ids" in line:
            assert tokenizer(text).tolist() == line["ids"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_turns_are_the_same_with_any_text_in_them(name):
    tokenizer = with_template(name)
    template = tokenizer.chat_template
    special = [*tokenizer.special_tokens, template.end_of_turn]
    harmless = [("user", "a"), ("assistant", "b"), ("user", "c")]
    counts = count_marks(template, template.prompt(harmless))
    assert sum(counts.values()) > 3
    for mark in [*special, *template.marks]:
        for text in (mark, f"x{mark}{mark}", f"{mark[:2]}{mark}{mark[2:]} y"):
            turns = [("user", text), ("assistant", text), ("user", text)]
            rendered = template.prompt(turns)
            assert count_marks(template, rendered) == counts, mark
            ids = tokenizer(template.escape(text)).tolist()
            assert not set(ids) & {tokenizer.token_to_id(s) for s in special}


def count_marks(template, text):
    return {mark: text.count(mark) for mark in template.marks}


@pytest.mark.parametrize(
    "name, end",
    [
        ("smollm2", "<|im_end|>"),
        ("qwen2", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("gemma3", "<end_of_turn>"),
        ("mistral", "</s>"),
        ("qwen3", "<|im_end|>"),
        ("qwen3_thoughts", "<|im_end|>"),
    ],
)
def test_prompt_completion_and_end_of_turn_make_the_whole_chat(name, end):
    template = with_template(name).chat_template
    assert template.end_of_turn == end
    prompt = template.prompt([("user", "One?")])
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
    ]
    whole = template.render(messages, add_generation_prompt=False)
    assert prompt + template.completion("Two.") + end == whole.rstrip("\n")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_completions_are_those_of_transformers(name):
    template = with_template(name).chat_template
    compared = 0
    for line in EXPECTED:
        *turns, (role, content) = [(m["role"], m["content"]) for m in line["messages"]]
        is_other = line["template"] != name or role != "assistant" or "text" not in line
        dropped = name == "qwen3" and "</think>" in content
        if is_other or line["add_generation_prompt"] or dropped:
            continue
        text = template.prompt(turns) + template.completion(content)
        assert text + template.end_of_turn == line["text"].rstrip("\n")
        compared += 1
    assert compared >= (1 if name == "qwen3" else 2)


THOUGHTS = "<think>\nHm.\n</think>\n\n4"
NO_END = "<think>\nHm."


@pytest.mark.parametrize(
    "opening, reply, content, completion",
    [
        # A template that leaves the thoughts out loses none of them.
        ("", "m.content.split('</think>')[-1].strip()", THOUGHTS, THOUGHTS),
        ("", "'<think></think>' ~ m.content.split('>')[-1]", THOUGHTS, THOUGHTS),
        # The prompt opens a thought: it is not opened again, and an answer closes it.
        ("<think>\n", "m.content", THOUGHTS, "Hm.\n</think>\n\n4"),
        ("<think>\n", "m.content", "Hm.\n</think>\n4", "Hm.\n</think>\n4"),
        ("<think>\n", "m.content", "4", "\n</think>\n\n4"),
        ("<think>\n", "'<think>\\n\\n</think>' ~ m.content", "4", "\n</think>4"),
        # Thoughts without an end, which templates take for an answer.
        ("", "'<think></think>' ~ m.content", NO_END, NO_END),
        ("<think>\n", "m.content", NO_END, "Hm."),
        ("<think>\n", "'<think>\\n\\n</think>' ~ m.content", NO_END, "Hm."),
    ],
)
def test_thoughts_are_trained_on_once(opening, reply, content, completion):
    template = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' %}{{ m.content }}"
        f"{{% else %}}{{{{ {reply} }}}}{{% endif %}}<e>{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<assistant>{opening}{{% endif %}}",
        special_tokens=["<e>"],
    )
    assert template.completion(content) == completion


@pytest.mark.parametrize("name", TOKENIZERS)
def test_thoughts_without_an_end_have_no_empty_thought_before_them(name):
    assert with_template(name).chat_template.completion(NO_END).lstrip(" ") == NO_END


@pytest.mark.parametrize("system", ["Think.\n", "  Think. ", "\n"])
def test_system_texts_with_outer_blanks_stay_where_the_template_has_them(system):
    template = with_template("llama3").chat_template
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "?"}]
    assert template.prompt([("user", "?")], system) == template.render(messages)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_system_text_is_in_the_prompt_once_even_if_the_template_refuses_it(name):
    template = with_template(name).chat_template
    prompt = template.prompt([("user", "One?")], system="Think.")
    assert prompt.count("Think.") == prompt.count("One?") == 1
    assert prompt.index("Think.") < prompt.index("One?")


def test_system_text_that_a_template_leaves_out_goes_to_the_user():
    template = ChatTemplate(
        "{% for m in messages if m.role != 'system' %}{{ m.content }}<end>{% endfor %}",
        special_tokens=["<end>"],
    )
    assert template.prompt([("user", "One?")], "Think.") == "Think.\n\nOne?<end>"


def test_template_is_kept_by_assets_and_exports(tmp_path):
    tokenizer = with_template("qwen2")
    text = tokenizer.chat_template.prompt([("user", "One?")])
    tokenizer.save_assets(tmp_path)
    again = type(tokenizer)(**tokenizer.get_config())
    again.load_assets(tmp_path)
    assert again.chat_template.prompt([("user", "One?")]) == text
    write_tokenizer(again, tmp_path)
    jinja = (tmp_path / "chat_template.jinja").read_text("utf-8")
    assert jinja == tokenizer.files["chat_template.jinja"]
    exported = read_tokenizer(tmp_path, {})
    assert exported.chat_template.prompt([("user", "One?")]) == text


def test_the_jinja_file_goes_before_the_configuration_and_default_before_others():
    def template(letter):
        return f"{{% for m in messages %}}{letter}{{{{ m.content }}}}</s>{{% endfor %}}"

    def prompt(files, **config):
        files |= {"tokenizer_config.json": json.dumps({"eos_token": "</s>", **config})}
        found = read_chat_template(files)
        return found and found.prompt([("user", "?")])

    assert prompt({}) is None
    assert prompt({}, chat_template=template("A")) == "A?</s>"
    file = {"chat_template.jinja": template("B")}
    assert prompt(file, chat_template=template("A")) == "B?</s>"
    named = [
        {"name": "tool_use", "template": template("C")},
        {"name": "default", "template": template("D")},
    ]
    assert prompt({}, chat_template=named) == "D?</s>"
    with pytest.raises(ValueError, match='one named "default"'):
        prompt({}, chat_template=named[:1])


@pytest.mark.parametrize(
    "template, message",
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("no turns at all", "shows each turn once"),
        ("{% for m in messages %}{{ m.content ~ m.content }}<e>{% endfor %}", "once"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "special token"),
        ("{{ raise_exception('I refuse') }}", "I refuse"),
        ("{{ messages[7].content.x }}", "UndefinedError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ dict.__init__.__globals__ }}", "SecurityError"),
        ("{% set n = namespace(__class__=1) %}", "SecurityError"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "SecurityError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_templates_that_are_no_use_or_do_harm_are_errors(template, message):
    with pytest.raises(ValueError, match=message):
        ChatTemplate(template, special_tokens=["<e>"])
