"""Server-sent events: the parts of an answer as they come."""

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse

from star_keras.sampling import Completion
from star_keras.sampling.text_stream import TextStream
from star_keras.serving.api_error import ApiError
from star_keras.serving.choices import Answers, Choice
from star_keras.serving.deadlines import Deadlines
from star_keras.serving.engine_thread import Job
from star_keras.serving.service import Service

# Seconds in which clients may read the rest, beyond the limit of a request, or after a
# signal when all completions are done.
LAST_SECONDS = 5


class EventStream(StreamingResponse):
    """Sends events until the client has them all, leaves, or takes too long.

    Args:
        events: The events.
        deadlines: Those of the service.
        deadline: Time of the event loop; the connection is cut a little later.

    Attributes:
        release: Called in the end, whatever happens.
    """

    def __init__(
        self, events: AsyncIterator[str], deadlines: Deadlines, deadline: float
    ):
        headers = {"Cache-Control": "no-store"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._deadlines, self._deadline = deadlines, deadline
        self.release: Callable[[], None] = lambda: None

    async def __call__(self, scope, receive, send):
        try:
            with contextlib.suppress(TimeoutError):
                async with self._deadlines.until(self._deadline, LAST_SECONDS):
                    await super().__call__(scope, receive, send)
        finally:
            self.release()


async def events(
    service: Service, answers: Answers, job: Job | None, deadline: float
) -> AsyncIterator[str]:
    """The events of a stream.

    Args:
        service: The service.
        answers: The answers to its request.
        job: Its completions; `None` if it asks for no tokens.
        deadline: Time of the event loop after which the stream ends with an error.
    """
    started, num_tokens = time.monotonic(), 0
    request = answers.request
    try:
        async with contextlib.aclosing(_parts(service, answers, job, deadline)) as all_:
            async for part, new in all_:
                if new and not num_tokens:
                    seconds = time.monotonic() - started
                    service.metrics.first_token_seconds.observe(seconds)
                num_tokens += new
                if part is not None:
                    yield _event(part)
        if request.include_usage:
            yield _event(answers.usage_part(num_tokens))
    except TimeoutError:
        yield _event(service.deadlines.error().body)
    except Exception:
        logging.exception("A stream has failed.")
        message = "The server has failed; its log says why."
        yield _event(ApiError(500, message).body)
    yield "data: [DONE]\n\n"


async def _parts(service, answers, job, deadline):
    """Pairs of a part, or `None`, and the number of its new tokens."""
    request = answers.request
    count = request.n * len(answers.prompts)
    for index in range(count):
        if (part := answers.first_part(index)) is not None:
            yield part, 0
    if job is None:
        for choice in await service.choices(request, answers.prompts):
            yield _end(answers, choice, "", 0), 0
        return
    stop = service.reader.stop(request)
    texts = [TextStream(service.sampler.tokenizer, stop) for _ in range(count)]
    reported = [0] * count
    iterator = aiter(job)
    while True:
        async with service.deadlines.until(deadline):
            if (found := await anext(iterator, None)) is None:
                return
        index, event = found
        if isinstance(event, Completion):
            service.metrics.completion_tokens.inc(event.num_tokens)
            rest = texts[index].finish(event.text)
            part = _end(answers, Choice(index, event), rest, reported[index])
            yield part, event.num_tokens - reported[index]
            continue
        reported[index] += len(event[0])
        text = texts[index].add(event[0])
        # Without new text, only log-probabilities are worth an event.
        wanted = text or request.log_probs is not None
        yield answers.next_part(index, text, event) if wanted else None, len(event[0])


def _end(answers, choice, text, num_reported):
    new = answers.last_part(choice.completion, num_reported)
    return answers.next_part(choice.index, text, new, choice.completion.finish_reason)


def _event(value):
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"
