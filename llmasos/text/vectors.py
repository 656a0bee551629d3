"""Vectors as they travel: base64 of little-endian float32, as OpenAI's clients know it too."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array


def unpack(text: str) -> list[float]:
    """The numbers of a vector.

    Raises:
        ValueError: it is not base64, or not of whole numbers.
    """
    try:
        numbers = array("f", base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
