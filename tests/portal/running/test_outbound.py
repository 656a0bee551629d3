"""S4: what we ask for at addresses of others goes to the world, never to inside."""

from __future__ import annotations

import socket
import threading

import pytest

from portal import outbound
from portal.outbound import Inside, public_address, session

INSIDE = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::"),
)


@pytest.mark.parametrize("address", INSIDE)
def test_no_inner_address_is_public(address: str) -> None:
    assert not outbound._is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_the_worlds_addresses_are(address: str) -> None:
    assert outbound._is_public(address)


def resolver(*addresses: str) -> object:
    def resolve(*args: object, **kwargs: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", (address, 80)) for address in addresses]

    return resolve


def test_one_inner_address_of_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver("8.8.8.8", "10.0.0.1"))
    with pytest.raises(Inside):
        public_address("two-faced.example", 80)


def test_it_connects_to_what_it_looked_at_and_resolves_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is bound anew between look and leap is leapt to as it was seen."""
    went: list[object] = []

    def connect(where: tuple[str, int], *args: object, **kwargs: object) -> None:
        went.append(where)
        raise OSError("far enough")

    monkeypatch.setattr(socket, "getaddrinfo", resolver("8.8.8.8"))
    monkeypatch.setattr(outbound, "create_connection", connect)
    with pytest.raises(OSError, match="far enough"):
        session().get("http://somewhere.example/")
    assert set(went) == {("8.8.8.8", 80)}


@pytest.fixture
def canary() -> object:
    """A listener on this machine, and how many connections it has had."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        hits: list[int] = []

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    hits.append(1)  # before whoever came can know of it
                    connection.close()
                except TimeoutError:
                    continue
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], hits


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_canary_inside_is_never_reached(
    canary: tuple[int, list[int]], host: str, scheme: str
) -> None:
    port, hits = canary
    with pytest.raises((Inside, OSError)):
        session(named="id.example.org").get(f"{scheme}://{host}:{port}/")
    assert hits == []


def test_the_host_that_was_named_is_reached(canary: tuple[int, list[int]]) -> None:
    port, hits = canary
    with pytest.raises(OSError):  # noqa: PT011  (it hangs up; that it was there is the point)
        session(named="127.0.0.1").get(f"http://127.0.0.1:{port}/")
    assert hits
