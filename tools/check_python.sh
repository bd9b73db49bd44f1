#!/bin/sh
# Usage: check_python.sh PYTHON - check that Python can be used, before anything is installed.
python=$1
if ! command -v "$python" >/dev/null 2>&1; then
    echo "error: $python was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "error: $python has no venv module (on Debian and Ubuntu: apt-get install python3-venv)" >&2
    exit 1
fi
