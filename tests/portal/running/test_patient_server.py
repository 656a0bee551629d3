"""An answer that nobody reads is not made: the server waits for its reader."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.environment import die_with_parent
from tests.running import REPOSITORY, _free_port, wait_for

KERNEL = 16 << 20
"""More than both ends' socket buffers hold."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = _free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "portal.serve", "-p", str(port), "-v", "0",
            "tests.portal.running.endless:application",
        ],
        cwd=REPOSITORY,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        found = f"http://127.0.0.1:{port}"
        assert wait_for(lambda: _answers(found), 20)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/made").status_code == 200
    except httpx2.TransportError:
        return False


def made(url: str) -> dict[str, int]:
    """Bytes of the endless answer that were made, and how many callers wait for more."""
    found: dict[str, int] = httpx2.get(f"{url}/made").json()
    return found


def test_an_answer_is_made_as_fast_as_it_is_read_and_no_faster(url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as caller:
        caller.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wait_for(lambda: made(url)["open"] == 1, 5)
        time.sleep(1)
        stalled = made(url)["bytes"]
        assert stalled < KERNEL
        time.sleep(0.5)
        assert made(url)["bytes"] == stalled
        taken = 0
        while taken < 2 * KERNEL:
            taken += len(caller.recv(1 << 20))
        assert made(url)["bytes"] > stalled
    assert wait_for(lambda: made(url)["open"] == 0, 5), "nobody tells whom the caller left"


def test_a_caller_who_leaves_an_answer_unread_is_noticed(url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as caller:
        caller.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wait_for(lambda: made(url)["open"] == 1, 5)
        time.sleep(0.5)
    assert wait_for(lambda: made(url)["open"] == 0, 5)


def test_short_and_streamed_answers_end(url: str) -> None:
    with httpx2.Client() as client:
        for _ in range(3):
            assert client.get(f"{url}/made").status_code == 200
            assert client.get(f"{url}/parts").text == "abc"


def test_what_a_socket_takes_is_sent_without_asking(url: str) -> None:
    before = made(url)["asked"]
    for _ in range(20):
        assert httpx2.get(f"{url}/parts").text == "abc"
    # At most where a connection ends, of which there are 20; for none of the 60 parts.
    assert made(url)["asked"] - before <= 20
