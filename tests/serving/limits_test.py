"""What is refused, and what a client that leaves gives back."""

import concurrent.futures
import contextlib
import itertools
import json
import logging
import socket
import time

import openai
import pytest
import requests

from star_keras.config import ServingConfig
from star_keras.serving import Service
from tests.serving.conftest import PROMPT, running_server, wait_for

LONG = {"model": "tiny", "prompt": PROMPT, "max_tokens": 200, "temperature": 2}
MANY = LONG | {"n": 40}


@pytest.fixture(scope="module")
def small(model):
    """Two slots, and room for one more."""
    settings = {"slots": 2, "max_waiting": 1, "max_body_bytes": 5000}
    with running_server(model, max_length=250, **settings) as server:
        yield server


def post(server, body, path="completions", **kwargs):
    return requests.post(f"{server.url}/v1/{path}", json=body, timeout=60, **kwargs)


def refused(response, status, *words):
    """Check an error of OpenAI's form."""
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    for word in words:
        assert word in error["message"]
    return error


WRONG = [
    ({"prompt": ""}, "prompt", "at least one token"),
    ({"prompt": []}, "prompt", "a list of 1 to"),
    ({"prompt": [1, True]}, "prompt", "token ids"),
    ({"prompt": [10**9]}, "prompt", "from 0 to 288"),
    ({"prompt": [-1]}, "prompt", "from 0 to 288"),
    ({"prompt": "7" * 600}, "prompt", "more than the limit of 250"),
    ({"max_tokens": 201}, "max_tokens", "at least 1 and of at most 200"),
    ({"max_tokens": 0}, "max_tokens", "at least 1 and of at most 200"),
    ({"max_tokens": 2.0}, "max_tokens", "an integer"),
    ({"temperature": -0.1}, "temperature", "at least 0 and of at most 2"),
    ({"temperature": "hot"}, "temperature", "a finite number"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"n": 4}, "n", "at most 3 completions"),
    ({"n": True}, "n", "an integer"),
    ({"stop": ["a", ""]}, "stop", "none of them empty"),
    ({"stop": ["a"] * 5}, "stop", "at most 4 texts"),
    ({"logprobs": 6}, "logprobs", "at least 0 and of at most 5"),
    ({"seed": 2**64}, "seed", "an integer"),
    ({"stream": 1}, "stream", "true or false"),
    ({"stream_options": {}, "stream": 0}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "beside `stream`"),
    ({"best_of": 2}, "best_of", "does not support"),
    ({"suffix": "end"}, "suffix", "does not support"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "does not support"),
    ({"presence_penalty": 0.5}, "presence_penalty", "does not support"),
    ({"top_k": 5}, "top_k", "Unknown field"),
    ({"model": None}, "model", "/v1/models"),
]


@pytest.mark.parametrize(("fields", "param", "words"), WRONG, ids=str)
def test_bad_fields_are_refused_by_name(small, fields, param, words):
    body = {"model": "tiny", "prompt": PROMPT} | fields
    assert refused(post(small, body), 400, words)["param"] == param


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
WRONG_CHATS = [
    ({"messages": []}, "messages", "at least one message"),
    ({"messages": ["Hi"]}, "messages[0]", "an object"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "a text"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "one of"),
    ({"tools": [{"type": "function"}]}, "tools", "does not support"),
    ({"response_format": {"type": "json_object"}}, "response_format", "not support"),
    ({"top_logprobs": 2}, "top_logprobs", "without `logprobs`"),
    ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "beside"),
    ({"echo": True}, "echo", "Unknown field"),
    ({}, None, "has no chat template"),
]


@pytest.mark.parametrize(("fields", "param", "words"), WRONG_CHATS, ids=str)
def test_bad_chats_are_refused_by_name(small, fields, param, words):
    response = post(small, CHAT | fields, "chat/completions")
    assert refused(response, 400, words)["param"] == param


def test_bodies_that_are_no_json_object_are_refused(small):
    url = f"{small.url}/v1/completions"
    for body in (b"", b"{", b"[]", b"\xff", b'{"n": NaN}', b"[" * 4000, b"7" * 4999):
        headers = {"Content-Type": "application/json"}
        refused(requests.post(url, data=body, headers=headers), 400, "JSON")
    refused(requests.post(url, data=b"{}"), 415, "application/json")
    refused(requests.get(url), 405)
    refused(requests.get(f"{small.url}/v1/images"), 404)
    refused(post(small, LONG | {"model": "gpt-5"}), 404, "'gpt-5'", "'tiny'")


def test_values_of_any_depth_and_size_are_refused(small):
    url, headers = f"{small.url}/v1/completions", {"Content-Type": "application/json"}
    for depth in (10, 500, 900, 950, 980):
        value = "[" * depth + "]" * depth
        for name in ("stop", "prompt", "n", "logit_bias", "messages"):
            body = f'{{"model": "tiny", "prompt": "a", "{name}": {value}}}'
            response = requests.post(url, data=body, headers=headers)
            assert len(refused(response, 400)["message"]) < 500
    refused(post(small, LONG | {"prompt": "x" * 4900}), 400, "250")


def test_without_max_tokens_16_come_or_those_that_fit(small):
    body = {"model": "tiny", "temperature": 2, "seed": 5}

    def count(prompt, **kwargs):
        answer = post(small, body | {"prompt": prompt, **kwargs}).json()
        assert {x["finish_reason"] for x in answer["choices"]} == {"length"}
        return answer["usage"]["completion_tokens"]

    assert count([5] * 245) == count([5] * 245, echo=True) == 5
    assert count([5]) == 16
    # Each of several prompts has its own limit, whatever the order.
    assert count([[5] * 245, [5], [5] * 245]) == 5 + 16 + 5
    assert count([[5], [5] * 245]) == 16 + 5
    refused(post(small, body | {"prompt": [5] * 245, "max_tokens": 16}), 400, "16 new")
    refused(post(small, body | {"prompt": [5] * 250}), 400, "with 1 new tokens")


def test_a_large_body_is_refused(small):
    refused(post(small, {"prompt": "x" * 6000}), 413, "5000 bytes")

    def parts():
        for _ in range(6):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    url = f"{small.url}/v1/completions"
    refused(requests.post(url, data=parts(), headers=headers), 413, "5000 bytes")


@pytest.fixture
def slow(model):
    """Makes a server of one slot that takes at least 40 slow chunks for `MANY`."""

    @contextlib.contextmanager
    def slow(**settings):
        settings = {"slots": 1, "max_waiting": 39} | settings
        with running_server(model, **settings) as server:
            steps = server.service.sampler.steps
            decode = steps.decode
            slow.chunks = itertools.count()

            def slow_decode(*arguments):
                next(slow.chunks)
                time.sleep(0.1)
                return decode(*arguments)

            steps.decode = slow_decode
            yield server

    return slow


def test_a_request_too_many_waits_no_more(slow, connect):
    with slow(slots=2, max_waiting=1) as server:
        client = connect(server)
        with client.completions.create(**LONG, n=3, stream=True) as stream:
            next(iter(stream))
            response = post(server, LONG)
            error = refused(response, 429, "limit is 3")
            assert error["type"] == "rate_limit_error"
            assert int(response.headers["Retry-After"]) >= 1
            # The client tries again after a second, as it is told.
            patient = connect(server, max_retries=5)
            assert patient.completions.create(**LONG).choices
            for _ in stream:
                pass


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slots(slow, connect, stream):
    with slow() as server:
        if stream:
            answer = connect(server).completions.create(**MANY, stream=True)
            next(iter(answer))
            answer.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                connect(server, timeout=0.3).completions.create(**MANY)
        wait_for(lambda: server.service.unfinished == 0)
        assert post(server, LONG | {"max_tokens": 1}).status_code == 200
        assert next(slow.chunks) < 40


def test_a_request_ends_at_its_time(slow):
    with slow(request_seconds=0.4) as server:
        error = refused(post(server, MANY), 504, "0.4 seconds")
        assert error["code"] == "timeout"
        wait_for(lambda: server.service.unfinished == 0)
        lines = post(server, MANY | {"stream": True}).text.strip().split("\n\n")
        assert lines[-1] == "data: [DONE]"
        error = json.loads(lines[-2].removeprefix("data: "))["error"]
        assert error["code"] == "timeout"
        wait_for(lambda: server.service.unfinished == 0)


def test_the_token_opens_the_server(model, connect):
    with running_server(model, token="secret") as server:
        assert requests.get(f"{server.url}/health").json()["status"] == "ok"
        refused(requests.get(f"{server.url}/metrics"), 401, "token")
        for token in ("wrong", "secret2", "\u00e9"):
            headers = {"Authorization": f"Bearer {token}".encode()}
            refused(post(server, LONG, headers=headers), 401, "token")
        for header in ("bearer secret", "BEARER  secret"):
            headers = {"Authorization": header}
            url = f"{server.url}/v1/models"
            assert requests.get(url, headers=headers).status_code == 200
        for header in ("Basic secret", "Bearer", "secret", "Bearer SECRET"):
            headers = {"Authorization": header}
            refused(post(server, LONG, headers=headers), 401, "token")
        with pytest.raises(openai.AuthenticationError):
            connect(server, "secre").models.list()
        assert connect(server, "secret").models.list().data


def test_other_names_of_this_machine_need_a_token(small):
    for host in ("evil.example", "evil.example:80"):
        response = requests.get(f"{small.url}/v1/models", headers={"Host": host})
        refused(response, 403, "Host")
    headers = {"Host": "localhost:1"}
    assert requests.get(f"{small.url}/v1/models", headers=headers).status_code == 200


def test_accepted_requests_are_answered_after_a_signal(slow):
    body = LONG | {"n": 3}
    with slow() as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, server, body) for _ in range(4)]
        wait_for(lambda: server.service.unfinished == 12)
        server.drain()
        late = post(server, LONG)
        assert refused(late, 503, "stopping")["type"] == "server_error"
        assert requests.get(f"{server.url}/health").status_code == 503
        assert all(x.result().status_code == 200 for x in answers)


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_comes_in_time_and_is_an_error_for_the_others(slow, caplog, stream):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with slow(shutdown_seconds=0.2) as server, pool:
        logging.getLogger("uvicorn").addHandler(caplog.handler)
        asked = pool.submit(post, server, MANY | {"stream": stream})
        wait_for(lambda: server.service.unfinished == 40)
        server.drain()
        response, started = asked.result(), time.monotonic()
    assert time.monotonic() - started < 3
    if stream:
        *_, error, last = response.text.strip().split("\n\n")
        assert last == "data: [DONE]"
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "stopping"
    else:
        assert refused(response, 503, "is stopping")["code"] == "stopping"
    assert next(slow.chunks) < 40
    assert not caplog.records


def test_the_end_does_not_wait_for_a_body(model):
    with running_server(model, shutdown_seconds=0.2) as server:
        address = server.servers[0].sockets[0].getsockname()
        with socket.create_connection(address) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            wait_for(lambda: server.server_state.tasks)
            server.drain()
            assert b" 503 " in client.makefile("rb").readline()


def test_a_failed_engine_ends_the_server(model):
    with running_server(model) as server:
        steps = server.service.sampler.steps

        def fail(*_):
            raise MemoryError("no more")

        steps.decode = fail
        refused(post(server, LONG), 500, "its log says why")
        assert isinstance(server.service.failure, MemoryError)


def test_metrics_count_requests_and_tokens(model):
    with running_server(model) as server:
        used = [post(server, LONG).json()["usage"] for _ in range(2)]
        post(server, LONG | {"n": 0})
        requests.get(f"{server.url}/nowhere")
        text = requests.get(f"{server.url}/metrics").text
    path = 'path="/v1/completions"'
    assert f'star_keras_requests_total{{{path},status="200"}} 2.0' in text
    assert f'star_keras_requests_total{{{path},status="400"}} 1.0' in text
    assert 'star_keras_requests_total{path="other",status="404"} 1.0' in text
    tokens = sum(x["completion_tokens"] for x in used)
    assert f"star_keras_completion_tokens_total {tokens}.0" in text
    assert "star_keras_running_completions 0.0" in text


def test_limits_beyond_the_model_are_refused(model):
    with pytest.raises(ValueError, match="max_length`. Expected at most 512"):
        Service(model, ServingConfig(max_length=513))
    with pytest.raises(ValueError, match="host`. Expected 127.0.0.1"):
        ServingConfig(host="0.0.0.0")
    ServingConfig(host="0.0.0.0", token="secret")
    with pytest.raises(ValueError, match="token`. Expected ASCII"):
        ServingConfig(token="")
