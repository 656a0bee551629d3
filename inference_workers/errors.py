"""What can go wrong in a worker.

WorkerError
├── ConfigError       a setting or argument is wrong: start-up refuses and names it
├── ModelError        a model can't be prepared or loaded: names the model and the remedy
└── RequestError      one request can't be served; the others go on
"""

from __future__ import annotations


class WorkerError(Exception):
    """Has a ``code`` for programs and a message that tells the reader what to do next."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConfigError(WorkerError):
    code = "bad_setting"


class ModelError(WorkerError):
    code = "bad_model"


class RequestError(WorkerError):
    code = "invalid_request"
