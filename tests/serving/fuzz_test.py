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
WHOLE_TEXTS = st.one_of(st.text(min_size=1, max_size=20), st.just(PROMPT))
NEEDED = {"model": st.just("tiny"), "max_tokens": st.integers(1, 5)}
COMMON = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1, exclude_min=True),
    "n": st.integers(1, 4),
    "stop": st.one_of(WHOLE_TEXTS, st.lists(WHOLE_TEXTS, max_size=4)),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "stream": st.booleans(),
}
COMPLETIONS = st.fixed_dictionaries(
    NEEDED
    | {
        "prompt": st.one_of(
            WHOLE_TEXTS,
            st.lists(WHOLE_TEXTS, min_size=1, max_size=3),
            st.lists(st.integers(0, 288), min_size=1, max_size=8),
            st.lists(
                st.lists(st.integers(0, 288), min_size=1, max_size=4),
                min_size=1,
                max_size=3,
            ),
        )
    },
    optional=COMMON | {"logprobs": st.integers(0, 5), "echo": st.booleans()},
)
CHATS = st.fixed_dictionaries(
    NEEDED
    | {
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["user", "system", "assistant"]),
                    "content": WHOLE_TEXTS,
                }
            ),
            max_size=3,
        )
    },
    optional=COMMON | {"logprobs": st.booleans(), "top_logprobs": st.integers(0, 5)},
)
NAMES = st.one_of(
    st.sampled_from(
        ["model", "prompt", "messages", "stream_options", "best_of", "logit_bias"]
        + ["max_tokens", "logprobs", "echo", "tools", *COMMON]
    ),
    TEXTS,
)


def with_wrong(bodies):
    """As they are, with another value of a field, or something else altogether."""
    changed = st.builds(lambda x, name, value: x | {name: value}, bodies, NAMES, VALUES)
    return st.one_of(bodies, changed, VALUES)


REQUESTS = st.one_of(
    st.tuples(st.just("completions"), with_wrong(COMPLETIONS)),
    st.tuples(st.just("chat/completions"), with_wrong(CHATS)),
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
@hypothesis.given(asked=REQUESTS)
def test_any_json_gets_an_answer(server, session, asked):
    path, body = asked
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
