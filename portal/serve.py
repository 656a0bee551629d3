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
        with suppress(Disconnected):  # the reader has just left, and daphne hasn't heard of it yet
            await super().handle_reply(protocol, message)


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
