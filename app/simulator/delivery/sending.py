"""Sends response scripts: writes, pauses, and abrupt ends of the connection."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import NoReturn

from aiohttp import web

from app.simulator.delivery.faults import HangUp, Step, Write

# How much is sent in one write when there is no pacing: a few dozen events.
BATCH_BYTES = 16_384
# A linger time of zero makes the kernel send RST instead of FIN.
NO_LINGER = struct.pack("ii", 1, 0)


class HangUpError(Exception):
    """The simulator closed the connection because the request asked for it."""


async def start_stream(
    request: web.Request, *, content_type: str, content_length: int | None = None
) -> web.StreamResponse:
    """Send the status line and the headers, and return the response to write to."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.content_length = content_length
    await response.prepare(request)
    return response


async def send_script(request: web.Request, response: web.StreamResponse, steps: Iterable[Step]) -> None:
    """Send ``steps`` in order and then end the body.

    Raises:
        HangUpError: the script ended with a hang-up.
        ConnectionError: the client left.
    """
    batch = bytearray()
    for step in steps:
        if isinstance(step, HangUp):
            await _flush(response, batch)
            hang_up(request, step)
        await _send(response, step, batch)
    await _flush(response, batch)
    await response.write_eof()


def hang_up(request: web.Request, how: HangUp) -> NoReturn:
    """Close or reset the connection of ``request``.

    Raises:
        HangUpError: always, so that the caller stops writing.
    """
    transport = request.transport
    # Without a transport the client has disconnected, so this is not the requested hang-up.
    if transport is None:
        raise ConnectionResetError("the client left first")
    if how is HangUp.RESET:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.abort()
    else:
        transport.close()
    raise HangUpError(how.value)


async def _send(response: web.StreamResponse, step: Write, batch: bytearray) -> None:
    if step.delay_s:
        await _flush(response, batch)
        await asyncio.sleep(step.delay_s)
    batch += step.data
    if step.alone or step.delay_s or len(batch) >= BATCH_BYTES:
        await _flush(response, batch)


async def _flush(response: web.StreamResponse, batch: bytearray) -> None:
    if batch:
        await response.write(bytes(batch))
        batch.clear()
