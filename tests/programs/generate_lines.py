"""Prints the prompts of lines with outer blanks, plain and in a chat, as JSON."""

import io
import json
import sys

from experiments.generate import Conversation, PlainQuestions, lines
from star_keras.models.hugging_face.chat_template import ChatTemplate

LINES = ["  a = 1 ", "\tb", " "]
template = ChatTemplate(
    "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}",
    special_tokens=["<end>"],
)


def prompts(questions, end):
    sys.stdin = io.StringIO("\r\n".join(LINES), newline=None)
    for _, line in lines(is_terminal=False):
        try:
            yield questions.make(line).prompt.removesuffix(end)
        except ValueError as error:
            assert "empty" in str(error)


plain = list(prompts(PlainQuestions(), ""))
print(json.dumps([plain, list(prompts(Conversation(template, False), "<end>"))]))
