"""Imports what takes seconds, and then forks for each program that it is asked to be: see `python.py`.

    python tests/warm/serve.py SOCKET

A program begins in an interpreter that has imported torch and Treadle and has done nothing else. In the end its threads
are waited for and what is registered at exit is called, as in any other, but objects are not taken apart one by one.
Its exit code, or the signal that ended it, is that of the program that asked. All ends with standard input.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import io
import json
import os
import select
import signal
import socket
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "torch.distributed", "tyro", "PIL.Image", "numba", "psutil", "uuid", "asyncio"),
    *("treadle.engine.trainer", "treadle.runs.attach", "treadle.runs.recorder", "treadle.runs.saving"),
    *("treadle.runs.pictures", "treadle.checkpoint.writer", "treadle.hooks", "treadle.cli.main", "treadle.cli.train"),
    *("treadle.cli.resume", "treadle.parallel.group", "treadle.testing"),
)
"""What most programs come to import. None of it looks at its surroundings when it is imported."""


def serve(address: str) -> dict[str, Any]:
    """Fork for each that connects; returns what is asked for in the process that is to do it, and nowhere else."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(64)
        os.rename(address + ".new", address)  # there for those that wait for it
        while True:
            ready, _, _ = select.select([listener, 0], [], [], 1.0)
            while _ended():
                pass
            if 0 in ready:
                os._exit(0)
            if listener in ready:
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    return _look_after(connection)
                connection.close()


def _ended() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _look_after(connection: socket.socket) -> dict[str, Any]:
    """Fork again, and hand on: signals to that process, and its end to who has asked. It dies with who has asked."""
    request, streams = _heard(connection)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return request | {"streams": streams}
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            connection.sendall(code.to_bytes(4, "big", signed=True))
            os._exit(0)
        for number in connection.recv(64) or [signal.SIGKILL]:
            os.kill(pid, number)
            if number == signal.SIGKILL:
                os.waitpid(pid, 0)
                os._exit(0)


def _heard(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    return json.loads(text), list(streams)


def become(request: dict[str, Any], site: list[str]) -> types.CodeType:
    """Turn into the program that is asked for; returns its code."""
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["variables"])
    options, arguments = "", list(request["arguments"])
    while arguments and arguments[0][:1] == "-" and arguments[0] not in ("-m", "-c"):
        options += arguments.pop(0)[1:]
    _open_streams(unbuffered="u" in options or bool(os.environ.get("PYTHONUNBUFFERED")))
    sys.executable = request["executable"] or sys.executable
    sys.orig_argv = [sys.executable, *request["arguments"]]
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*(os.path.abspath(path) for path in paths), *site]
    importlib.invalidate_caches()
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    kind = arguments.pop(0)
    beside = str(Path(kind).absolute().parent)
    if kind == "-m":
        beside = os.getcwd()
    elif kind == "-c":
        beside = ""
    if "P" not in options and not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, beside)
    if kind == "-c":
        sys.argv[:] = ["-c", *arguments[1:]]
        return compile(arguments[0], "<string>", "exec")
    if kind != "-m":
        sys.argv[:], main.__file__ = [kind, *arguments], str(Path(kind).absolute())
        return compile(Path(kind).read_bytes(), main.__file__, "exec")
    name = arguments.pop(0)
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    assert spec is not None and spec.origin is not None, f"no module named {name}"
    main.__spec__, main.__package__, main.__file__ = spec, spec.parent, spec.origin
    sys.argv[:] = [spec.origin, *arguments]
    return spec.loader.get_code(spec.name)  # type: ignore[union-attr]


def _open_streams(*, unbuffered: bool) -> None:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        raw = open(number, "wb" if number else "rb", buffering=0 if unbuffered and number else -1, closefd=False)  # noqa: SIM115
        handling = "backslashreplace" if name == "stderr" else errors or None
        stream = io.TextIOWrapper(
            raw, encoding or None, handling, line_buffering=raw.isatty() or name == "stderr", write_through=unbuffered
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(code: types.CodeType) -> int:
    """Run a program to its end, as an interpreter does; returns its exit code, or ends by its signal."""
    ended = 0
    try:
        exec(code, sys.modules["__main__"].__dict__)
    except SystemExit as error:
        if isinstance(error.code, int):
            ended = error.code
        elif error.code is not None:
            print(error.code, file=sys.stderr)
            ended = 1
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # as if nothing had called it
        sys.excepthook(type(error), error, error.__traceback__)
        ended = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except ValueError:  # the program has closed it
            continue
        except OSError as error:
            ended = 120
            with suppress(OSError):
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)
    if ended < 0:
        signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    return ended & 255


if __name__ == "__main__":
    given = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    given.add(str(Path(__file__).absolute().parent))
    asked = serve(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # All that is imported is not taken apart object by object: that takes .3 s.
    os._exit(run(become(asked, [path for path in sys.path if path not in given])))
