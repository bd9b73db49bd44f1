import subprocess
import sys

ORPHAN = """
import os, sys, time
from irra.utils.signals import stop_with_parent
if os.fork() == 0:
    stop_with_parent()
    print("ready", flush=True)
    time.sleep(60)
os.read(0, 1)
os.kill(os.getpid(), 9)
"""


def test_a_process_stops_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.communicate(b"\n", timeout=10)  # returns when nobody has the pipe open any more
    assert process.returncode == -9
