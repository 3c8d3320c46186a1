"""Prints the prompts of a conversation, and of lines in a pipe, as JSON."""

import json

from experiments.generate import Conversation
from star_keras.models.hugging_face.chat_template import ChatTemplate

template = ChatTemplate(
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    special_tokens=["<end>"],
)


def prompts(remembers):
    conversation, found = Conversation(template, remembers), []
    for line, answer in (("Hi", "Hello<end>"), ("Again", "Yes"), ("", ""), ("New", "")):
        try:
            question = conversation.make(line)
        except ValueError as error:
            found.append(str(error))
        else:
            found.append(question.prompt)
            assert conversation.answered(question, answer) == ""
    return found


print(json.dumps([prompts(True), prompts(False)]))
