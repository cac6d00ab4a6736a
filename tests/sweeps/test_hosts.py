"""Several machines in one directory: where their locks reach one another, and where they do not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from treadle import UsageError
from treadle.runs.lock import LOCK, RunLock, last_host
from treadle.sweeps import hosts
from treadle.sweeps.hosts import locks_stay_here
from treadle.sweeps.locking import locked

from .test_study import end, opened

pytest.importorskip("optuna")

ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"


def mount(kind: str, options: str, point: str = "/data") -> str:
    return f"{ROOT}36 22 0:31 / {point} rw,relatime shared:9 - {kind} server:/data rw,{options}\n"


@pytest.mark.parametrize(
    ("mounts", "said"),
    [
        ("", ""),
        (ROOT, ""),
        (mount("nfs4", "vers=4.2,local_lock=none"), ""),
        (mount("nfs", "vers=3,local_lock=all,addr=10.0.0.1"), "nfs with local_lock=all"),
        (mount("nfs", "vers=3,local_lock=posix"), ""),  # flock's are the server's
        (mount("nfs", "vers=3,local_lock=flock"), "nfs with local_lock=flock"),
        (mount("nfs", "vers=3,nolock"), "nfs with nolock"),
        (mount("nfs4", "local_lock=all"), "nfs4 with local_lock=all"),
        (mount("nfs4", "local_lock=flock"), "nfs4 with local_lock=flock"),
        (mount("cifs", "vers=3.0"), ""),
        (mount("cifs", "vers=3.0,nobrl"), "cifs with nobrl"),
        (mount("smb3", "nobrl"), "smb3 with nobrl"),
        (mount("fuse.rclone", ""), "fuse.rclone"),
        (mount("fuse.s3fs", ""), "fuse.s3fs"),
        (mount("fuse.gcsfuse", ""), "fuse.gcsfuse"),
        (mount("lustre", "flock"), ""),
        (mount("lustre", "localflock"), "lustre with localflock"),
        (mount("fuse.sshfs", "user_id=0"), "fuse.sshfs"),
        (mount("fuse.sshfs", "user_id=0", "/dat"), ""),  # another directory's
        (mount("fuse.sshfs", "", "/data/my\\040runs"), ""),
        (mount("fuse.sshfs", "") + "40 36 0:40 / /data/s rw - ext4 /dev/sdb rw\n", ""),  # what is mounted below counts
    ],
)
def test_what_a_mount_says_of_its_locks(mounts: str, said: str) -> None:
    assert locks_stay_here(Path("/data/s"), mounts) == said
    assert locks_stay_here(Path("/data/my runs/s"), mount("fuse.sshfs", "", "/data/my\\040runs")) == "fuse.sshfs"


def test_a_link_is_on_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert locks_stay_here(tmp_path / "link", mount("fuse.sshfs", "", str(tmp_path / "data"))) == "fuse.sshfs"


def test_a_lock_says_whose_it_was(tmp_path: Path) -> None:
    assert last_host(tmp_path) is None
    lock = RunLock(tmp_path)
    assert last_host(tmp_path) == os.uname().nodename
    lock.release()
    assert last_host(tmp_path) == os.uname().nodename
    for text in ("", "[]", "{}", '{"host": 3}'):
        (tmp_path / LOCK).write_text(text)
        assert last_host(tmp_path) is None


def test_where_locks_stay_on_a_machine_another_ones_trials_are_left_to_it(
    slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    study, _ = opened(slope, path, trials=2)
    claim = study.claim()
    assert claim is not None
    with claim:
        holder = path / "trial-001" / LOCK
        known = json.loads(holder.read_text())
    holder.write_text(json.dumps(known | {"host": "gpu7"}))  # as if a machine had it whose locks are not seen here
    again, _ = opened(slope, path, trials=2)
    taken = again.claim()
    assert taken is not None and taken.resumed  # on a file system with locks that is what its free lock means
    end(again, taken)
    taken.__exit__()
    holder.write_text(json.dumps(known | {"host": "gpu7"}))
    (tmp_path / "mounts").write_text(mount("fuse.sshfs", "user_id=0", str(tmp_path)))
    monkeypatch.setattr(hosts, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(UsageError, match=r"on fuse\.sshfs, where .* and gpu7 has trained in it: .*--storage"):
        opened(slope, path, trials=2)
    for text in ("", json.dumps(known)):  # nobody knows whose it was; this machine's own
        holder.write_text(text)
        opened(slope, path, trials=2)
    holder.unlink()  # as the message says
    opened(slope, path, trials=2)


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UsageError, match="cannot be locked: No locks available; give a directory"),
        locked(tmp_path / "l"),
    ):
        pass
