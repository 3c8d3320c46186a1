"""Any request gets an answer, and never a failure of the server."""

import json

import hypothesis
import pytest
import requests
from hypothesis import strategies as st

from tests.serving.conftest import PROMPT, wait_for

# Half characters, characters of four bytes, zeros, marks of Unicode.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\ud800", "\U0001f600", "\u202e", "x" * 600, PROMPT]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([10**30, -(10**30), 2**63, 1e300, 1e-300, -0.0, 0.5, 5]),
    st.floats(allow_nan=True),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"]), "content": TEXTS}
    ),
    max_size=3,
)
LIKELY = {
    "model": st.just("tiny"),
    "prompt": st.one_of(
        TEXTS,
        st.lists(TEXTS, max_size=3),
        st.lists(st.integers(0, 300), max_size=8),
        st.lists(st.lists(st.integers(0, 288), max_size=4), max_size=3),
    ),
    "messages": MESSAGES,
    "max_tokens": st.integers(0, 20),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "n": st.integers(1, 4),
    "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=4)),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "logprobs": st.one_of(st.integers(0, 5), st.booleans()),
    "top_logprobs": st.integers(0, 5),
    "echo": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "best_of": st.integers(1, 2),
}
NEEDED = {name: LIKELY[name] for name in ("model", "max_tokens")}
OTHERS = {name: values for name, values in LIKELY.items() if name not in NEEDED}
LIKELY_BODIES = st.fixed_dictionaries(NEEDED, optional=OTHERS)
BODIES = st.one_of(
    LIKELY_BODIES,
    st.builds(
        lambda body, name, value: body | {name: value},
        LIKELY_BODIES,
        st.one_of(st.sampled_from(list(LIKELY)), TEXTS),
        VALUES,
    ),
    VALUES,
)
PATHS = st.sampled_from(["completions", "chat/completions"])


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        session.headers["Content-Type"] = "application/json"
        yield session


def check(response, service):
    assert response.status_code in (200, 400, 404, 413), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]
    elif response.headers["content-type"].startswith("text/event-stream"):
        *events, last = response.text.strip().split("\n\n")
        assert last == "data: [DONE]"
        for event in events:
            assert "error" not in json.loads(event.removeprefix("data: "))
    else:
        assert response.json()["choices"]
    wait_for(lambda: service.unfinished == 0)


@hypothesis.settings(max_examples=300)
@hypothesis.given(path=PATHS, body=BODIES)
def test_any_json_gets_an_answer(server, session, path, body):
    response = session.post(
        f"{server.url}/v1/{path}", data=json.dumps(body).encode(), timeout=60
    )
    check(response, server.service)


@hypothesis.settings(max_examples=50)
@hypothesis.given(path=PATHS, body=st.binary(max_size=50))
def test_any_bytes_get_an_answer(server, session, path, body):
    response = session.post(f"{server.url}/v1/{path}", data=body, timeout=60)
    assert response.status_code == 400
    check(response, server.service)
