"""Which lines of a child's output a person at the console should see. Pure."""

from __future__ import annotations

import json
import re

_LEVEL = re.compile(r"\[\s*(warning|error|critical)\s*\]", re.IGNORECASE)
_PLAIN = re.compile(r"^(Traceback |Bad setting |\S*(Error|Exception): )")
_VALKEY = re.compile(r"^\d+:\w .* # .*(warning|fatal|error|fail|can't|bad )", re.IGNORECASE)
_EVERYDAY = re.compile(r"\[portal\.health\]|overcommit_memory")
"""What every start says: the supervisor tells readiness itself, and Valkey's hint is in its log."""

LONGEST = 400


def worth_saying(line: str) -> str | None:
    """The line as it should be shown, or ``None`` when it belongs into the log file alone."""
    if _EVERYDAY.search(line):
        return None
    if line.startswith("{"):
        return _from_json(line)
    if any(pattern.search(line) for pattern in (_LEVEL, _PLAIN, _VALKEY)):
        return line[:LONGEST]
    return None


def _from_json(line: str) -> str | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if "error" in event and isinstance(event["error"], dict):  # a refusal: {"error": {code, …}}
        return str(event["error"].get("message", ""))[:LONGEST] or None
    if event.get("level") not in ("warning", "error", "critical"):
        return None
    hidden = ("level", "event", "timestamp", "logger", "exception")
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in hidden)
    return f"{event['level']}: {event.get('event', '')} {rest}".strip()[:LONGEST]
