"""Serve the search page on this machine.

python -m app.web                                       # http://127.0.0.1:7860; what `make demo` runs
python -m app.web --model models:/irra@champion --port 8000
"""

import argparse
import resource
import socket
from pathlib import Path

from components.layout import INDEX, MODEL
from components.stage import guarded
from irra.utils.errors import UserError

MAX_FILES = 65_536  # open at once; each connection is one
GRACE_SECONDS = 3  # for running requests when the server is stopped


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app.web", description="Serve the search page.")
    parser.add_argument("--model", default=str(MODEL), help="model folder or MLflow address (default: %(default)s)")
    parser.add_argument("--index", default=str(INDEX), help="index: a folder or lance:ADDRESS (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; browsers must use this name, or localhost (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args()
    return guarded(lambda: serve(arguments.model, arguments.index, arguments.host, arguments.port))


def serve(model: str, index: str | Path, host: str, port: int) -> None:
    """Open model and index, and answer requests until interrupted.

    Raises:
        UserError: The port is in use, or model and index cannot be opened or do not belong together.
    """
    with listen(host, port) as listener:  # before the model loads, so that a port in use is reported at once
        import torch
        import uvicorn

        from app.web.app import create_app
        from app.web.protocol import TimedProtocol
        from components.tracking.models import resolve_model
        from irra.search.engine import SearchEngine

        engine = SearchEngine.open(resolve_model(model), index)
        torch.set_num_threads(1)  # requests share the cores, one thread each
        name = f"[{host}]" if ":" in host else host
        app = create_app(engine, [name])
        config = uvicorn.Config(
            app,
            http=TimedProtocol,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        print(
            f"{engine.gallery.size} pictures to search at http://{name}:{listener.getsockname()[1]} (Ctrl+C stops)",
            flush=True,
        )
        allow_connections()
        uvicorn.Server(config).run(sockets=[listener])


def allow_connections() -> None:
    """Let this process hold as many connections as the system permits; the usual limit is 1,024 open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES), most)
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port`.

    Raises:
        UserError: That is not possible.
    """
    if port not in range(65536):  # getaddrinfo would use it modulo 65536
        raise UserError(f"--port {port}: ports go from 1 to 65535")
    try:
        # Only with an explicit protocol does asyncio disable Nagle's algorithm, which delays every response by 40 ms.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # otherwise a restart waits for old connections
        listener.bind(address)
        listener.listen()
        return listener
    except OSError as error:
        raise UserError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port"
        ) from None


if __name__ == "__main__":
    raise SystemExit(main())
