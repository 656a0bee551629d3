"""The portal's server: daphne, which waits for readers that are slower than their answers.

    python -m portal.serve -p 8000 portal.asgi:application     and all of daphne's other options

Daphne puts whatever an application sends into the connection's buffer, without bound: a few readers
that ask for long answers and never read them would fill the memory. Here a streamed answer goes on
only while less than twisted's mark (64 KiB) of it is unsent, so that whoever makes it waits too.
What comes by WebSocket is bounded by acknowledgements (``portal.playground.stream``).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import autobahn.util
from autobahn.exception import Disconnected
from daphne.cli import CommandLineInterface
from daphne.http_protocol import WebRequest
from daphne.server import Server

# Autobahn colours its messages for debugging before it asks whether anybody wants them, which takes
# as long as all else that it does for a frame.
autobahn.util._HAS_CLICK = False


class Flow:
    """Told by the connection when its buffer is full and when there is room again: a push producer
    in twisted's words, and so are its methods' names."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()

    def pauseProducing(self) -> None:
        self.room.clear()

    def resumeProducing(self) -> None:
        self.room.set()

    def stopProducing(self) -> None:
        """The reader has gone; nothing more is sent, and nobody must wait."""
        self.room.set()


class PatientServer(Server):  # type: ignore[misc]
    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await _await_room(protocol, more=message.get("more_body", False))
        transport = _transport(protocol)
        if transport is None:
            return
        transport.startWriting = _wait  # see _send
        try:
            with suppress(Disconnected):  # the reader has just left, and daphne hasn't heard yet
                await super().handle_reply(protocol, message)
        finally:
            del transport.startWriting
            _send(transport)


def _transport(protocol: Any) -> Any:
    """The connection of a request or a socket; ``None`` when it has gone."""
    owner = protocol.channel if isinstance(protocol, WebRequest) else protocol
    return owner and owner.transport


def _wait() -> None:
    """In the place of a connection's ``startWriting`` while something is written to it."""


def _send(transport: Any) -> None:
    """What was just written, now. Twisted would first ask the loop whether the socket takes it, a
    whole turn and two system calls for a token's few bytes. What the socket doesn't take is sent
    when it does, and whatever else becomes of the connection is twisted's to see as well."""
    if transport.connected and not transport.disconnecting:
        transport.doWrite()
    if transport.dataBuffer or transport.disconnecting:
        transport.startWriting()


async def _await_room(protocol: Any, *, more: bool) -> None:
    """Before a part of a body is written. One that comes in a single part needs no watching."""
    flow: Flow | None = protocol.producer
    if flow is not None:
        await flow.room.wait()
    if protocol.channel is None:
        return
    if more and flow is None:
        protocol.registerProducer(Flow(), True)
    elif not more and flow is not None:
        protocol.unregisterProducer()


class Interface(CommandLineInterface):  # type: ignore[misc]
    server_class = PatientServer


if __name__ == "__main__":
    Interface.entrypoint()
