"""What can go wrong before there is a job. A refused request is not a job and writes nothing.

JobRefused
├── InvalidRequest          the request can't be served as it is; ``field`` says what to change
│   └── IdempotencyConflict the same key came with another request
├── Forbidden               the API key in whose name it was asked may not do that
├── ModelUnavailable        the model is known, but nothing may serve it now
├── QueueFull               too many wait already; ``retry_after`` seconds
└── Unavailable             the queue can't be reached; ``retry_after`` seconds

Over budget is ``usage.services.OverBudget``, too often ``usage.limits.RateLimited``.
"""

from __future__ import annotations


class JobRefused(Exception):
    """``code`` is for programs; ``message`` tells people what to do next."""

    code = "refused"
    field: str | None = None
    retry_after: int | None = None

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry_after is not None:
            self.retry_after = retry_after


class InvalidRequest(JobRefused):
    code = "invalid_request"

    def __init__(self, field: str | None, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


class IdempotencyConflict(InvalidRequest):
    def __init__(self) -> None:
        super().__init__(
            "idempotency_key",
            "This idempotency key was used for another request. Use a new key.",
            "idempotency_conflict",
        )


class Forbidden(JobRefused):
    code = "model_not_allowed"
    field = "model"


class ModelUnavailable(JobRefused):
    code = "model_unavailable"
    retry_after = 30


class QueueFull(JobRefused):
    code = "queue_full"
    retry_after = 10


class Unavailable(JobRefused):
    code = "unavailable"
    retry_after = 2
