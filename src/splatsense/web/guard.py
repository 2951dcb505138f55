"""`Guard`: what every request passes before the application sees it, and the headers that every reply carries.

Design
- The `Host` must be one of ours, so that no page of a stranger reaches this server through a name of its own (DNS rebinding).
- What another site's page sends is refused: by `Origin` where it changes something, by `Sec-Fetch-Site` at all. Programs that
  are no browsers send neither and are let in. There is no CORS: no header ever allows another origin.
- Where there is a token, it is asked for: once in the link, then in a cookie, or as a bearer.
- Bodies are counted while they arrive, and one that stalls is given up.
- The content security policy names this server and nothing else. Spark needs WebAssembly and a worker made from a blob; the
  import map is allowed by its hash.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splatsense.web.replies import UNEXPECTED, error_reply
from splatsense.web.settings import WebSettings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "splatsense_token"
HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
INLINE_SCRIPT = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.S)


class Guard:
    """ASGI middleware around the application.

    Args:
        app: the application.
        settings: hosts, token, limits.
        page: the HTML file whose import map is allowed.
        body_limit: method and path -> most bytes of the body.
    """

    def __init__(self, app: ASGIApp, settings: WebSettings, page: Path, body_limit: Callable[[str, str], int]) -> None:
        self._app, self._settings, self._body_limit = app, settings, body_limit
        self._headers = _reply_headers(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send_with_headers)
            return
        limited = _Body(receive, self._body_limit(scope["method"], scope["path"]), self._settings)
        try:
            await self._app(scope, limited.receive, send_with_headers)
        except Exception as error:  # a defect of ours must not take the server down, and must leave a trace
            if started:
                logging.getLogger("splatsense.web").exception("a reply broke off: %s", scope["path"])
                raise
            await error_reply(500, UNEXPECTED, error)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._settings.knows_host(_without_port(host)):
            return error_reply(421, "This server is not known by that name; open it at the address it printed.")
        site = headers.get("sec-fetch-site")
        is_page = scope["method"] in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not is_page:
            return error_reply(403, "Requests from the pages of other sites are refused.")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and origin != f"{scope['scheme']}://{host}":
            return error_reply(403, "Requests from the pages of other sites are refused.")
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        token = self._settings.token
        if token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and _same(query.pop("token", [""])[0], token):
            rest = urlencode(query, doseq=True)
            reply = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            reply.set_cookie(COOKIE, quote(token, safe=""), httponly=True, samesite="strict")
            return reply
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not given:
            pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
            given = next((unquote(value) for name, _, value in pairs if name == COOKIE), "")
        if _same(given, token):
            return None
        return error_reply(401, "This library needs the token that `splatsense serve` printed; open the whole link.")


class _Body:
    """The body of one request: counted, and timed until it has arrived."""

    def __init__(self, receive: Receive, limit: int, settings: WebSettings) -> None:
        self._receive, self._limit, self._settings = receive, limit, settings
        self._deadline = time.monotonic() + settings.request_seconds
        self._bytes, self._complete = 0, False

    async def receive(self) -> Message:
        """The next part. Raises HTTPException when the body is too long or too slow."""
        if self._complete:  # what waits now is a reply that wants to know when the client leaves
            return await self._receive()
        left = self._deadline - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(left, self._settings.silence_seconds)))
        except TimeoutError as error:
            raise HTTPException(408, "The request took too long to arrive.") from error
        self._complete = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limit:
            raise HTTPException(413, f"The request is longer than {self._limit:,} bytes, the most that is taken here.")
        return message


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _without_port(host: str) -> str:
    found = HOST.fullmatch(host)
    return found[1].lower() if found else ""


def _reply_headers(page: Path) -> dict[str, str]:
    found = INLINE_SCRIPT.search(page.read_text("utf-8"))
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode() if found else ""
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' 'sha256-{digest}'",
        "worker-src": "blob:",
        "connect-src": "'self'",
        "img-src": "'self'",
        "style-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
