"""A server in front of MLflow's that has an outage: it refuses, hangs, is slow or fails for some time."""

import http.client
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

SLOW_SECONDS = 5.0
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}  # headers of one connection


@dataclass(frozen=True)
class Outage:
    """What happens from the first request on whose path holds `since`, for some seconds or until `Proxy.mend`."""

    kind: str  # refuse, hang, slow or fail
    since: str = ""  # any path
    seconds: float | None = None

    def __str__(self) -> str:
        start = {"": "the first request", "log-batch": "the first rows", "mlflow-artifacts": "the first upload"}
        end = "until the training ended" if self.seconds is None else f"for {self.seconds:g} s"
        return f"{self.kind} from {start[self.since]} {end}"


class Proxy:
    """Forwards requests to a port of this machine, except during its outage."""

    def __init__(self, port: int, outage: Outage) -> None:
        self._behind, self._outage = port, outage
        self._began: float | None = None
        self._mended = threading.Event()
        self._lock = threading.Lock()
        self._server = self._listen(0)
        self.port: int = self._server.server_port

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.mend()
        self._server.shutdown()
        self._server.server_close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def happened(self) -> bool:
        """Whether the outage has begun."""
        return self._began is not None

    def mend(self) -> None:
        """End the outage, and have none any more."""
        with self._lock:
            self._mended.set()
            if self._refusing():
                self._server = self._listen(self.port)

    def _refusing(self) -> bool:
        return self._server.fileno() == -1

    def _listen(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        server.block_on_close = False  # a handler closes it
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.close_connection = True
                if proxy._out(self.path):
                    proxy._fail(self, body)
                else:
                    proxy._forward(self, body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _out(self, path: str) -> bool:
        """Whether the outage is on; it begins with the first request that is asked for."""
        with self._lock:
            if self._mended.is_set():
                return False
            if self._began is None and self._outage.since in path:
                self._began = time.monotonic()
                if self._outage.seconds is not None:
                    threading.Timer(self._outage.seconds, self.mend).start()
                if self._outage.kind == "refuse":
                    self._server.shutdown()
                    self._server.server_close()
            return self._began is not None

    def _fail(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        match self._outage.kind:
            case "hang":
                self._mended.wait()
            case "slow":
                time.sleep(SLOW_SECONDS)
                self._forward(handler, body)
            case "fail":
                handler.send_error(500)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        behind = http.client.HTTPConnection("127.0.0.1", self._behind, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP}
        try:
            behind.request(handler.command, handler.path, body or None, headers)
            answer = behind.getresponse()
            content = answer.read()
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:  # either side is gone
            pass
        finally:
            behind.close()
