"""Say that a port is taken, which MLflow's server ends on without a failing exit: check_port.py PORT."""

import socket
import sys


def main() -> int:
    """Try to listen on the port of the command line; returns the exit status."""
    port = sys.argv[1]
    try:
        with socket.create_server(("127.0.0.1", int(port))):
            return 0
    except (OSError, ValueError, OverflowError) as error:
        print(f"PORT={port}: {error}; give another one: make mlflow PORT=5001", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
