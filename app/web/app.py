"""The search page as an ASGI application: files, API, error messages and headers."""

import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.api import Api
from irra.search.engine import SearchEngine
from irra.utils.errors import UserError

STATIC = Path(__file__).parent / "static"
LOCAL_HOSTS = ("localhost", "127.0.0.1")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def create_app(engine: SearchEngine, hosts: Sequence[str] = ()) -> FastAPI:
    """Create the page and its API for `engine`.

    Only requests whose host is local or in `hosts` are accepted. Otherwise, another site's script could read the
    answers through a foreign name that resolves to this machine (DNS rebinding).
    """
    # No interactive documentation: it would load its scripts from another host.
    app = FastAPI(title="Person search", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(Api(engine).router(), prefix="/api")
    app.add_api_route("/", index, methods=["GET", "HEAD"])
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(UserError, lambda request, error: answer(400, str(error)))
    app.add_exception_handler(RequestValidationError, explain_validation)
    app.add_exception_handler(AnyHTTPException, explain_http)
    app.add_exception_handler(ClientDisconnect, note_disconnect)
    app.add_exception_handler(Exception, lambda request, error: answer(500, "the server failed; its log says why"))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS, *hosts], www_redirect=False)
    app.add_middleware(SecurityHeaders)
    return app


async def index() -> FileResponse:
    """Return the page itself."""
    return FileResponse(STATIC / "index.html")


def answer(status: int, message: str) -> JSONResponse:
    """Return an error in the form that the whole API uses."""
    return JSONResponse({"error": message}, status, HEADERS)


async def explain_validation(request: Request, error: Exception) -> JSONResponse:
    """Name the parameters that are invalid."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{problem['loc'][-1]}: {problem['msg'][0].lower()}{problem['msg'][1:]}" for problem in error.errors()]
    return answer(422, "; ".join(problems))


async def explain_http(request: Request, error: Exception) -> JSONResponse:
    """Report unknown addresses and methods, and errors raised by the API."""
    assert isinstance(error, AnyHTTPException)
    return answer(error.status_code, error.detail)


async def note_disconnect(request: Request, error: Exception) -> JSONResponse:
    """An upload that was broken off is no failure of the server: one line, and an answer that nobody reads."""
    print(f"{request.url.path}: the upload was broken off", file=sys.stderr, flush=True)
    return answer(499, "the upload was broken off")


class SecurityHeaders:
    """Adds `HEADERS` to every response that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
