"""LLMasOS for Python: large language models here, or on a portal, in a few lines.

>>> from llmasos import LLMa
>>> model = LLMa.from_pretrained("gemma-3-270m")   # in this process
>>> model = LLMa.connect("http://localhost:8000", api_key="…")   # on a portal
>>> for piece in model.stream("The library was quiet that morning."): print(piece, end="")

Importing ``llmasos`` loads nothing heavy: torch comes with the first ``from_pretrained``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos.errors import LLMasOSError
    from llmasos.model import LLMa
    from llmasos.stream import Stream

__all__ = ["LLMa", "LLMasOSError", "Stream"]
__version__ = "0.1.0"

_HOMES = {
    "LLMa": "llmasos.model",
    "LLMasOSError": "llmasos.errors",
    "Stream": "llmasos.stream",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'llmasos' has no attribute {name!r}")
