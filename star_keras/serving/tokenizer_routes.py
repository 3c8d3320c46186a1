"""The tokenizer over HTTP, as vLLM shows its own and lm-evaluation-harness asks.

Reference: https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
"""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from star_keras.serving.api_error import ApiError, bad_field
from star_keras.serving.fields import Fields, read_object
from star_keras.serving.guard import read_body
from star_keras.serving.service import Service


def tokenizer_routes(service: Service) -> list[Route]:
    """`/tokenizer_info`, `/tokenize` and `/detokenize`.

    Args:
        service: Its tokenizer and limits are used.
    """
    tokenizer = service.sampler.tokenizer

    async def info(_):
        names = {"bos_token": "start_token_id", "eos_token": "end_token_id"}
        ids = {name: getattr(tokenizer, of, None) for name, of in names.items()}
        found = {
            name: None if i is None else tokenizer.id_to_token(i)
            for name, i in ids.items()
        }
        return JSONResponse(found)

    async def tokenize(request):
        fields = await _fields(service, request)
        text = fields.text("prompt")
        start = fields.boolean("add_special_tokens", True)
        fields.finish()
        if text is None:
            raise bad_field("prompt", "a text", text)
        ids = await service.tokenize(text, add_start_token=start)
        return JSONResponse(
            {"tokens": ids, "count": len(ids), "max_model_len": service.max_length}
        )

    async def detokenize(request):
        fields = await _fields(service, request)
        ids = fields.raw("tokens")
        fields.finish()
        try:
            ids = service.sampler.checked_ids("tokens", ids)
        except ValueError as error:
            raise ApiError(400, str(error), param="tokens") from None
        text = tokenizer.detokenize(ids) if ids else ""
        return JSONResponse({"prompt": text})

    return [
        Route("/tokenizer_info", info),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
    ]


async def _fields(service, request: Request):
    service.check_open()
    fields = Fields(
        read_object(await read_body(request, service.config.max_body_bytes))
    )
    model = fields.text("model", service.name)
    if model != service.name:
        raise service.no_model(model)
    return fields
