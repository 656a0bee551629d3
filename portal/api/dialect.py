"""The one ninja API, all in OpenAI's dialect: parsing, errors, unknown routes."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.http.request import UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.parser import Parser
from ninja.types import DictStrAny

from portal.api import revocation
from portal.api.auth import Caller, too_often
from portal.api.errors import ApiError, from_validation
from portal.metrics import JOBS_REFUSED
from portal.usage import acting
from portal.usage.limits import RateLimited

logger = logging.getLogger(__name__)

View = Callable[..., Any]


class JsonParser(Parser):
    """JSON and nothing else; what JSON itself forbids (NaN) is refused, and so is what hurts."""

    def parse_body(self, request: HttpRequest) -> DictStrAny:
        if (request.content_type or "").lower() != "application/json":
            raise ApiError(
                415,
                "Send the body as JSON, with the header 'Content-Type: application/json'.",
                code="unsupported_media_type",
            )
        try:
            value = json.loads(request.body, parse_constant=_no_constant)
        except RecursionError:
            raise _bad_json("it is nested too deeply") from None
        except json.JSONDecodeError as error:
            raise _bad_json(str(error)) from None
        except UnicodeDecodeError:
            raise _bad_json("it is not UTF-8") from None
        except ValueError:  # Python reads no integer of thousands of digits
            raise _bad_json("a number in it is too long") from None
        if not isinstance(value, dict):
            raise _bad_json("it is no object")
        return value


def _no_constant(name: str) -> NoReturn:
    raise _bad_json(f"{name} is no JSON number")


def _bad_json(reason: str) -> ApiError:
    return ApiError(400, f"The request's body is not valid JSON: {reason}.", code="invalid_json")


api = NinjaAPI(
    title="LLMasOS",
    version="1",
    description="OpenAI's dialect under /v1, and the house's own things under /api/v1. "
    "Keys are made on the team's page.",
    urls_namespace="api",
    parser=JsonParser(),
    docs_url=None,
    openapi_url=None,
)


def error_response(error: ApiError) -> HttpResponse:
    return JsonResponse(error.body(), status=error.status, headers=error.headers)


@api.exception_handler(ApiError)
def _refused(request: HttpRequest, error: ApiError) -> HttpResponse:
    return error_response(error)


@api.exception_handler(RateLimited)
def _too_much(request: HttpRequest, error: RateLimited) -> HttpResponse:
    """A job's tokens were more than its key may use in a minute."""
    JOBS_REFUSED.labels("rate_limited").inc()
    caller = getattr(request, "auth", None)
    if isinstance(caller, Caller):
        caller.acting.tokens = error.left
    return error_response(too_often(error))


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return error_response(from_validation(error.errors))


@api.exception_handler(HttpError)
def _http(request: HttpRequest, error: HttpError) -> HttpResponse:
    """ninja wraps whatever the parser raised."""
    cause = error.__cause__
    if isinstance(cause, ApiError):
        return error_response(cause)
    return error_response(ApiError(error.status_code, str(error), code="invalid_request"))


@api.exception_handler(AuthenticationError)
def _unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return error_response(ApiError(401, "Sign in with an API key.", code="invalid_api_key"))


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
    message = f"The request's body is larger than {limit / 1e6:.1f} MB; send a shorter prompt."
    return error_response(ApiError(413, message, code="request_too_large"))


@api.exception_handler(UnreadablePostError)
def _unread(request: HttpRequest, error: UnreadablePostError) -> HttpResponse:
    return error_response(ApiError(400, "The request's body broke off.", code="invalid_request"))


@api.exception_handler(Exception)
def _broken(request: HttpRequest, error: Exception) -> HttpResponse:
    logger.error("api_error", exc_info=error, extra={"path": request.path})
    message = "Something broke on our side. Try again; if it stays, quote the x-request-id."
    return error_response(ApiError(500, message, code="internal_error"))


def in_dialect(view: View) -> View:
    """``view`` with the key's limits on its answer, OpenAI's form for a wrong method, and an end
    when its key ends."""

    async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        called = view if inspect.iscoroutinefunction(view) else sync_to_async(view)
        try:
            response = await _until_revoked(request, called(request, *args, **kwargs))
        finally:
            acting.act(None)
        if response.status_code == 405:
            allowed = response.headers["Allow"]
            message = f"{request.method} is not allowed here; use {allowed}."
            response = error_response(
                ApiError(405, message, code="method_not_allowed", headers={"Allow": allowed})
            )
        caller = getattr(request, "auth", None)
        if isinstance(caller, Caller):
            for name, value in (await caller.headers()).items():
                response.headers.setdefault(name, value)
        return response

    answer.csrf_exempt = True  # type: ignore[attr-defined]  # keys, not cookies, sign callers in
    return answer


async def _until_revoked(
    request: HttpRequest, answering: Awaitable[HttpResponseBase]
) -> HttpResponseBase:
    """The answer, or why there is none. A stream is watched to its end."""
    try:
        response = await answering
        watch = revocation.watch_of(request)
    except asyncio.CancelledError:
        watch = revocation.watch_of(request)
        if watch is None or not watch.caught():
            raise
        return error_response(revocation.revoked())
    finally:
        revocation.release(request)
    if watch is None:
        return response
    if watch.ended:
        return error_response(revocation.revoked())
    if isinstance(response, StreamingHttpResponse):
        content = cast("AsyncIterator[bytes]", response.streaming_content)
        response.streaming_content = revocation.guarded(content, watch)
    return response


async def no_such_route(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
    message = f"There is nothing at {request.path}. See /api/v1/openapi.json for what there is."
    return error_response(ApiError(404, message, code="not_found"))
