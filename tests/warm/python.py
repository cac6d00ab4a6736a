"""An interpreter for tests to start programs with, that begins in a fiftieth of a second instead of in two to three.

`python()` is a file that can be started wherever `sys.executable` can: `-m MODULE`, `-c TEXT` or a file. The program
then runs in a process of its own that has imported torch and Treadle already (`serve.py`): what is started here hands
its standard streams, its variables and its directory over, passes signals on, and ends as the program does.

For programs that need no interpreter of their own. One that is about what is imported when, about memory, terminals,
or about the very process that was started (its id, its parent, its limits) is started with `sys.executable`.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

SECONDS = 250
"""For imports, however busy the machine is."""
SHIM = """#!{python} -IS
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})

    def hand_on(number, frame):
        server.sendall(bytes([number]))

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), hand_on)
    own = sys.argv[0] if sys.argv[0].endswith("-for-all") else None
    told = {{"arguments": sys.argv[1:], "executable": own, "directory": os.getcwd(), "variables": dict(os.environ)}}
    text = json.dumps(told).encode()
    socket.send_fds(server, [len(text).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(text)
    for stream in (0, 1, 2):  # who reads what the program says is to see its end
        os.close(stream)
    said = server.recv(4)
code = int.from_bytes(said, "big", signed=True) if said else -signal.SIGKILL
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def python(*, everything: bool = False) -> str:
    """What to start programs with; `sys.executable` itself where the system cannot do it.

    With `everything`, it is the program's own `sys.executable` as well, so that what it starts begins as quickly.
    """
    own, for_all = _pythons()
    return for_all if everything else own


@cache
def _pythons() -> tuple[str, str]:
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return sys.executable, sys.executable
    folder = Path(tempfile.mkdtemp(prefix="treadle-warm-"))
    address = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("serve.py")), str(address)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_end, server, folder)
    deadline = time.monotonic() + SECONDS
    while not address.exists():
        assert server.poll() is None and time.monotonic() < deadline, "the warm interpreter does not start"
        time.sleep(0.02)
    for name in ("python", "python-for-all"):
        (folder / name).write_text(SHIM.format(python=sys.executable, address=str(address)))
        (folder / name).chmod(0o755)
    return str(folder / "python"), str(folder / "python-for-all")


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.communicate()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
