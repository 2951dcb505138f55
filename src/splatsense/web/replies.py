"""Errors as JSON: `{"error": {"id", "status", "message"}}`, the id also in the server's log."""

import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from splatsense.errors import LibraryError, LimitError, SplatSenseError
from splatsense.tables import printable

log = logging.getLogger("splatsense.web")

UNEXPECTED = "Something went wrong in the server. Its log has the details under this id."


def error_reply(status: int, message: str, error: BaseException | None = None) -> JSONResponse:
    """The reply to a request that failed; `error` is logged with its traceback."""
    identity = secrets.token_hex(4)
    log.log(logging.ERROR if status >= 500 else logging.INFO, "%s: %d %s", identity, status, message, exc_info=error)
    content = {"error": {"id": identity, "status": status, "message": printable(message)}}
    return JSONResponse(content, status, {"Cache-Control": "no-store"})


def handle_errors(app: FastAPI) -> None:
    """Make every error of the application's routes a JSON reply."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        reply = error_reply(error.status_code, str(error.detail))
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, fault['loc'][1:])) or fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        return error_reply(422, "; ".join(faults) + ".")

    @app.exception_handler(SplatSenseError)
    async def unusable(request: Request, error: SplatSenseError) -> JSONResponse:
        if isinstance(error, LibraryError):
            return error_reply(503, str(error), error)
        return error_reply(413 if isinstance(error, LimitError) else 422, str(error))
