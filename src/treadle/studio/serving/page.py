"""The files of the page, read once: no request names a file on the disk."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parents[1] / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
NOT_BUILT = "The studio's page has not been built here: run 'make studio' in the clone, or install the wheel."


def static_files(directory: Path = STATIC) -> dict[str, tuple[bytes, str]]:
    """The page's files by path ("/", "/app.js"), with their types, all in memory: no request names a file on disk."""
    files = {}
    for path in sorted(directory.rglob("*")) if directory.is_dir() else []:
        kind = TYPES.get(path.suffix)
        if kind is not None and path.is_file() and not path.is_symlink():
            name = path.relative_to(directory).as_posix()
            files["/" if name == "index.html" else f"/{name}"] = (path.read_bytes(), kind)
    return files
