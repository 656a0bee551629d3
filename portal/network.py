"""Who is on the other end: a client's address, seen through as many proxies as we were told of."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest

FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "Via")
UNKNOWN = "unknown"


def client_address(remote: str | None, forwarded_for: str | None, *, proxies: int) -> str:
    """The client's address in its canonical form, or ``"unknown"``.

    ``remote`` is the peer of our socket. Each trusted proxy appends its own peer to
    ``X-Forwarded-For``, so the client is the ``proxies``-th entry from the right; everything left
    of it was written by the client and is worth nothing.
    """
    candidate = remote
    if proxies and forwarded_for:
        hops = [hop.strip() for hop in forwarded_for.split(",")]
        candidate = hops[-proxies] if len(hops) >= proxies else remote
    return _canonical(candidate)


def request_address(request: HttpRequest) -> str:
    """``client_address`` of an HTTP request."""
    return client_address(
        request.META.get("REMOTE_ADDR"),
        request.headers.get("X-Forwarded-For"),
        proxies=settings.LLMASOS.trusted_proxies,
    )


def quota_address(address: str) -> str:
    """What shares one visitor's quota: an IPv4 address, or an IPv6 /64, which one client owns."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return UNKNOWN
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False).network_address) + "/64"


def is_from_this_machine(request: HttpRequest) -> bool:
    """Whether somebody at this computer sent it: no proxy in between, no page of another site.

    A proxy on this machine also connects from the loopback address, so a deployment that says it
    has one (``TRUSTED_PROXIES``, a public ``PUBLIC_URL``) or a request that shows traces of one is
    never from here. ``Host`` and ``Origin`` must be loopback names too: that refuses a name that
    was rebound to 127.0.0.1.
    """
    public = settings.LLMASOS.public_url
    if settings.LLMASOS.trusted_proxies or (public and not _is_loopback_url(public)):
        return False
    if any(request.headers.get(name) for name in FORWARDED):
        return False
    origin = request.headers.get("Origin")
    if origin is not None and not _is_loopback_url(origin):
        return False
    return is_loopback(_canonical(request.META.get("REMOTE_ADDR"))) and _is_loopback_url(
        f"//{request.get_host()}"
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_loopback_url(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _canonical(address: str | None) -> str:
    """IPv4 written as IPv6 (``::ffff:1.2.3.4``) is IPv4; a zone index and brackets are dropped."""
    try:
        parsed = ipaddress.ip_address((address or "").strip().strip("[]").partition("%")[0])
    except ValueError:
        return UNKNOWN
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
