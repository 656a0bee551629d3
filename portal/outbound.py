"""Requests to addresses that somebody else wrote: to the world, never to inside.

The check is made where the connection is: a name is resolved once, every address that it has must
be public, and exactly one of those is connected to. So neither a redirect, a name that is bound
anew, an IPv4 address written as IPv6 nor a decimal one gets past it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util.connection import create_connection

TIMEOUT_S = 10.0


class Inside(requests.RequestException):
    """The address is not one of the public internet's."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is not a public address: it is not followed.")


def session(*, named: str = "") -> requests.Session:
    """A session that reaches the public internet and the host ``named``, wherever that is.

    It knows no proxies and no ``.netrc``. Raises ``Inside`` for everything else.
    """
    made = requests.Session()
    made.trust_env = False
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(named))
    return made


def public_address(host: str, port: int) -> str:
    """An address of ``host``. Raises ``Inside`` if any that it has is not public."""
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(map(_is_public, found)):
        raise Inside(host)
    return found[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if inner is not None:
            return inner.is_global
        if parsed in NAT64:
            return _is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed.is_global and not parsed.is_multicast


NAT64 = ipaddress.ip_network("64:ff9b::/96")


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _Secure(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


def _connect(connection: HTTPConnection) -> socket.socket:
    host = connection._dns_host
    where = (public_address(host, connection.port), connection.port)
    return create_connection(where, connection.timeout, socket_options=connection.socket_options)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    """Two pools of connections: one that looks where it goes, one for the host that was named."""

    def __init__(self, named: str) -> None:
        self._named = named.lower()
        self._guarded = PoolManager()
        self._guarded.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        super().__init__()

    def get_connection_with_tls_context(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        host = (urlsplit(request.url).hostname or "").lower()
        if self._named and host == self._named:
            return super().get_connection_with_tls_context(request, *args, **kwargs)
        ours, self.poolmanager = self.poolmanager, self._guarded
        try:
            return super().get_connection_with_tls_context(request, *args, **kwargs)
        finally:
            self.poolmanager = ours

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT_S
        return super().send(request, *args, **kwargs)
