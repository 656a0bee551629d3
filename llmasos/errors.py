"""What can go wrong for a user of the SDK. Each message says what to do next.

LLMasOSError
├── InvalidRequest        the request can't be served as it is: change it
│   ├── TokenizerError    the text can't become tokens
│   └── ChatTemplateError the model's template failed, looped or grew without end
├── ModelNotFound         no such model here: prepare it, or correct its name
├── ModelUnavailable      it is known, but can't serve now: wait, load it, or read the remedy
├── Unauthorized          the key is missing, wrong, revoked, or may not do this
├── RateLimited           beyond a rate, a budget or the queue; ``retry_after`` in seconds
├── Unreachable           no portal answers at the address
├── Timeout               it answered too slowly
└── GenerationFailed      it started, and ended without its answer
"""

from __future__ import annotations


class LLMasOSError(Exception):
    """``code`` is for programs; ``message`` for people; ``status`` is HTTP's, if any."""

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(LLMasOSError):
    code = "invalid_request"


class TokenizerError(InvalidRequest):
    code = "bad_text"


class ChatTemplateError(InvalidRequest):
    code = "bad_chat_template"


class ModelNotFound(LLMasOSError):
    code = "model_not_found"


class ModelUnavailable(LLMasOSError):
    code = "model_unavailable"


class Unauthorized(LLMasOSError):
    code = "unauthorized"


class RateLimited(LLMasOSError):
    code = "rate_limited"


class Unreachable(LLMasOSError):
    code = "unreachable"


class Timeout(LLMasOSError):
    code = "timeout"


class GenerationFailed(LLMasOSError):
    code = "generation_failed"
