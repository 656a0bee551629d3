"""``{{ session.user_agent|agent }}``: what browsers call themselves, as people would."""

from __future__ import annotations

from django import template

register = template.Library()

BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
"""The first that is found counts: each also claims to be most of those below."""


@register.filter
def agent(text: str) -> str:
    """``Firefox, Linux``; a browser that nobody knows is called what it calls itself."""
    found = [
        next((name for mark, name in known if mark in text), None) for known in (BROWSERS, SYSTEMS)
    ]
    return ", ".join(filter(None, found)) or text
