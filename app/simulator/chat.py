"""``POST /v1/chat/completions``."""

import asyncio
from dataclasses import replace
from typing import NoReturn

from aiohttp import web

from app.simulator.delivery import faults, rendering
from app.simulator.delivery.faults import HangUp
from app.simulator.delivery.pacing import Pacing
from app.simulator.delivery.sending import hang_up, send_script, start_stream
from app.simulator.generation import completion
from app.simulator.json_text import indented
from app.simulator.models import Catalogue
from app.simulator.request import ChatRequest
from app.simulator.rules.acceptance import accept
from app.simulator.traffic import Exchange, Traffic


async def respond(
    request: web.Request, exchange: Exchange, pacing: Pacing, traffic: Traffic, catalogue: Catalogue
) -> web.StreamResponse:
    """Send the response to one chat request, at ``pacing`` unless the request overrides it.

    Raises:
        OpenAIError: the request is invalid, or a directive requests an error.
        HangUpError: a directive requested that the connection end early.
    """
    chat = accept(exchange, catalogue)
    directive = faults.in_effect(
        chat.directive, authorization=exchange.headers["Authorization"], seen=traffic.seen(exchange)
    )
    chat = replace(chat, directive=directive)
    faults.raise_error(directive, model=chat.model.name)
    if faults.resets_at_once(directive, stream=chat.streams):
        hang_up(request, HangUp.RESET)
    if directive.fault == "slow":
        await asyncio.sleep(directive.seconds)
    plain = faults.PLAIN_RESPONSES.get(directive.fault or "")
    if plain is not None:
        return web.Response(status=plain.status, body=plain.body, content_type=plain.content_type)
    send = _stream if chat.streams else _whole
    return await send(request, chat, pacing.overridden_by(directive))


async def _stream(request: web.Request, chat: ChatRequest, pacing: Pacing) -> web.StreamResponse:
    response = await start_stream(request, content_type="text/event-stream; charset=utf-8")
    events = list(rendering.events(completion.complete(chat), pacing))
    await send_script(request, response, faults.script(events, chat.directive))
    return response


async def _whole(request: web.Request, chat: ChatRequest, pacing: Pacing) -> web.StreamResponse:
    answered = completion.complete(chat)
    await asyncio.sleep(pacing.whole_response_s(answered.longest))
    body = indented(rendering.body(answered))
    if chat.directive.fault in faults.BODY_FAULTS:
        await _half(request, body)
    return web.Response(body=body, content_type="application/json")


async def _half(request: web.Request, body: bytes) -> NoReturn:
    response = await start_stream(request, content_type="application/json", content_length=len(body))
    await response.write(body[: len(body) // 2])
    hang_up(request, HangUp.CLOSE)
