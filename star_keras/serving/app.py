"""The routes of the server, an ASGI application.

Reference: https://platform.openai.com/docs/api-reference
"""

import asyncio
import contextlib
import functools
import time
import uuid

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from star_keras.serving.api_error import ApiError
from star_keras.serving.choices import Answers
from star_keras.serving.fields import read_object
from star_keras.serving.guard import Guard, error_response, read_body
from star_keras.serving.protocol import chat_request, completion_request
from star_keras.serving.service import Service
from star_keras.serving.streaming import EventStream, events
from star_keras.serving.token_texts import TokenTexts
from star_keras.serving.tokenizer_routes import tokenizer_routes


def make_app(service: Service) -> Guard:
    """The ASGI application of a service, which its lifespan starts and stops.

    Args:
        service: The service.
    """
    started = int(time.time())
    texts = TokenTexts(service.sampler.tokenizer)
    model = {
        "id": service.name,
        "object": "model",
        "created": started,
        "owned_by": "star-keras",
    }

    async def models(_):
        return JSONResponse({"object": "list", "data": [model]})

    async def one_model(request):
        if request.path_params["name"] != service.name:
            raise service.no_model(request.path_params["name"])
        return JSONResponse(model)

    async def health(_):
        service.check_open()
        found = {"status": "ok", "model": service.name}
        if service.iteration is not None:
            found["iteration"] = service.iteration
        return JSONResponse(found)

    async def metrics(_):
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    def answering(parse):
        return functools.partial(_answer, service, texts, parse)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    routes = [
        Route("/v1/completions", answering(completion_request), methods=["POST"]),
        Route("/v1/chat/completions", answering(chat_request), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
        Route("/health", health),
        Route("/metrics", metrics),
        *tokenizer_routes(service),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _http_error,
            ApiError: _api_error,
            Exception: _failure,
        },
    )
    return Guard(app, service, {route.path for route in routes})


async def _http_error(_, error):
    return error_response(ApiError(error.status_code, f"{error.detail}."))


async def _api_error(_, error):
    return error_response(error)


async def _failure(*_):
    return error_response(ApiError(500, "The server has failed; its log says why."))


async def _answer(service: Service, texts: TokenTexts, parse, request: Request):
    """The response to a request for completions."""
    deadline = asyncio.get_running_loop().time() + service.config.request_seconds
    with contextlib.ExitStack() as stack:
        try:
            async with service.deadlines.until(deadline):
                service.check_open()
                body = await read_body(request, service.config.max_body_bytes)
                asked = parse(read_object(body), service.max_new_tokens)
                stack.enter_context(service.admit(asked))
                work = _completed(service, texts, asked, stack, deadline)
                response = await _unless_gone(request, work)
        except TimeoutError:
            raise service.deadlines.error() from None
        except ClientDisconnect:
            return Response(status_code=499)
        if isinstance(response, EventStream):
            response.release = stack.pop_all().close
        return response


async def _completed(service, texts, asked, stack, deadline):
    """The response; `stack` gets what is to be done after a stream."""
    prompts = await service.prompts(asked)
    answers = Answers(
        asked,
        prompts,
        texts,
        name=service.name,
        answer_id=uuid.uuid4().hex,
        created=int(time.time()),
    )
    if not asked.stream:
        return JSONResponse(answers.whole(await service.choices(asked, prompts)))
    job = None
    if asked.max_tokens != 0:
        job = service.submit(asked, prompts)
        stack.callback(job.abort)
    parts = events(service, answers, job, deadline)
    return EventStream(parts, service.deadlines, deadline)


async def _unless_gone(request, work):
    """The result of a coroutine, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: if it has left.
    """
    tasks = [asyncio.create_task(work), asyncio.create_task(_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnect
    finally:
        for task in tasks:
            task.cancel()
        # Until what is cancelled has given its slots back.
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass
