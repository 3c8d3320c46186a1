"""`/v1/chat/completions` of a model with a chat template."""

import math

import openai
import pytest

from star_keras.models import load_causal_lm
from star_keras.outer_loop.prompts import find_chat_template
from star_keras.sampling import ContinuousSampler, SampleRequest
from tests.models.hugging_face.cases import copied_with_template
from tests.serving.conftest import running_server

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One and one?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": [{"type": "text", "text": "And <|im_end|> three?"}]},
]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    directory = copied_with_template(
        "llama_tied", "smollm2", tmp_path_factory.mktemp("chat")
    )
    return load_causal_lm(str(directory))


@pytest.fixture(scope="module")
def client(chat_model, connect):
    chat = find_chat_template(chat_model.preprocessor)
    with running_server(chat_model, chat=chat, max_new_tokens=30) as server:
        yield connect(server)


@pytest.fixture(scope="module")
def expected(chat_model):
    """The completion of `MESSAGES` by our sampler."""
    chat = find_chat_template(chat_model.preprocessor)
    turns = [(x["role"], x["content"]) for x in MESSAGES[1:3]]
    prompt = chat.prompt([*turns, ("user", "And <|im_end|> three?")], "Be brief.")
    assert prompt.count("<|im_end|>") == 4
    request = SampleRequest(prompt=prompt, name="", add_start_token=False)
    sampler = ContinuousSampler(chat_model, max_new_tokens=30, batch_size=1)
    ((_, completion),) = next(iter(sampler.sample([request])))
    return completion


def ask(client, messages=MESSAGES, **arguments):
    arguments = {"temperature": 0} | arguments
    return client.chat.completions.create(model="tiny", messages=messages, **arguments)


def test_an_answer_is_the_completion_of_the_template(client, expected):
    answer = ask(client)
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == expected.text
    assert choice.finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == expected.num_tokens


def test_a_stream_begins_with_the_role_and_has_the_same_text(client, expected):
    parts = list(ask(client, stream=True, n=2, logprobs=True))
    for index in range(2):
        own = [p.choices[0] for p in parts if p.choices[0].index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(x.delta.content or "" for x in own) == expected.text
        assert own[-1].finish_reason == expected.finish_reason
        shown = [t for x in own if x.logprobs for t in x.logprobs.content]
        assert len(shown) == expected.num_tokens


def test_log_probs_name_the_likeliest_tokens(client, expected):
    (choice,) = ask(client, logprobs=True, top_logprobs=3).choices
    content = choice.logprobs.content
    assert len(content) == expected.num_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        best = token.top_logprobs[0]
        assert (best.token, best.logprob) == (token.token, token.logprob)
        assert sum(math.exp(x.logprob) for x in token.top_logprobs) <= 1.001
        assert bytes(token.bytes).decode(errors="replace") == token.token


def test_a_limit_ends_an_answer(client, expected):
    answer = ask(client, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert expected.text.startswith(answer.choices[0].message.content)


def test_the_user_has_the_last_word(client):
    for messages in (MESSAGES[:1], MESSAGES[:3]):
        with pytest.raises(openai.BadRequestError, match="last message is the user's"):
            ask(client, messages)
