"""Where a studio listens: a port of this machine, or a Unix socket; and how people are told."""

from __future__ import annotations

import errno
import getpass
import os
import socket as net
import stat
import sys
import tempfile
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from treadle.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Place:
    """Where a studio is to listen.

    Attributes:
        host: 127.0.0.1 unless somebody says otherwise: the tokens then go over the network as they are.
        port: 0 takes one that is free.
        socket: the path of a Unix socket that is made instead, for its owner alone (0600).
        root: what a proxy puts before every path, such as "/user/ada/studio".
        origins: where pages may come from besides the studio's own address, such as a proxy's "https://hub.example.org".
    """

    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    root: str = ""
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.root and (not self.root.startswith("/") or self.root.endswith("/") or "//" in self.root):
            raise UsageError(f"studio root {self.root!r}: expected a path such as '/studio'")
        for origin in self.origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
                raise UsageError(
                    f"studio origin {origin!r}: expected scheme and host, such as 'https://hub.example.org'"
                )

    def listen(self) -> net.socket:
        """The socket that connections come to. Raises UsageError where the place is taken or cannot be had."""
        return self._listen_unix(self.socket) if self.socket is not None else self._listen_tcp()

    def _listen_tcp(self) -> net.socket:
        try:
            found = net.getaddrinfo(self.host, self.port, type=net.SOCK_STREAM, flags=net.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            listener = net.socket(family, kind, protocol)
            if sys.platform != "win32":  # there it would let two listen at once
                listener.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(64)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"studio: port {self.port} of {self.host} is taken: choose another with --studio-port, or 0 for a "
                    "free one"
                ) from None
            raise UsageError(f"studio: cannot listen at {self.host} port {self.port}: {error}") from None
        return listener

    def _listen_unix(self, path: Path) -> net.socket:
        if sys.platform == "win32":
            raise UsageError("studio: this system has no Unix sockets: use a port")
        listener = net.socket(net.AF_UNIX, net.SOCK_STREAM)
        try:
            _remove_stale(path)
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(64)
        except (OSError, UsageError) as error:
            listener.close()
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"studio: cannot make the socket {path}: {error}") from None
        return listener

    def hosts(self, port: int) -> list[str]:
        """The values that a request's Host may have."""
        names = set(LOOPBACK)
        if self.socket is None and self.host not in LOOPBACK:
            names |= {self.host, net.gethostname(), net.getfqdn()} - {"0.0.0.0", "::"}
        at = "*" if self.socket is not None else str(port)
        own = [f"{name}:{at}" for name in sorted(names)]
        if self.socket is None and port == 80:
            own += sorted(names)
        return own + [origin.partition("://")[2] for origin in self.origins]

    def allowed_origins(self, port: int) -> list[str]:
        """The values that a request's Origin may have."""
        theirs = {origin.partition("://")[2] for origin in self.origins}
        return [f"http://{host}" for host in self.hosts(port) if host not in theirs] + list(self.origins)

    def url(self, port: int) -> str:
        """The page's address, without a token."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") or self.socket is not None else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self.root}/"

    def tunnel(self, port: int) -> str:
        """The command that brings the page to another machine."""
        to = self.socket.absolute() if self.socket is not None else f"127.0.0.1:{port}"
        return f"ssh -L {port}:{to} {_user()}@{net.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "USER"


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at. Raises UsageError for one that is in use, and for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"studio: {path} is there and is no socket: name another with --studio-socket")
    with net.socket(net.AF_UNIX, net.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise UsageError(f"studio: another program listens at {path}: name another with --studio-socket")


def has_browser() -> bool:
    """Whether a browser can be opened here for somebody who sits in front of it."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("BROWSER") == "none":
        return False
    if sys.platform not in ("win32", "darwin") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def open_browser(address: str) -> Path:
    """Open a browser at an address that nobody else may see, by way of a file that only we can read; returns it.

    Other users of the machine can read the arguments of every process, so the browser is given the file's name.
    """
    handle, name = tempfile.mkstemp(prefix="treadle-studio-", suffix=".html")  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">\n')
    path = Path(name)
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(path.as_uri())
    return path
