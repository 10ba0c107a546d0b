"""The second backend's launcher, a script of its own: builds the sandbox from Linux namespaces by system calls.

    python -I -S -B namespaces.py VIEW INFO      VIEW: backends.View as JSON; INFO: descriptor for the first process' id

An ordinary user gets a user namespace in which its own id is called nobody's. Root builds the rest without one, and
the server inside gives root's rights up before anything else. Needs Linux 5.12 (`mount_setattr`), the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_OTHERS = 0x10000000, 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000 | 0x2000000
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> None:
    result = _LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _call(f"mount {target}", result)


def _unshare(nobody: int) -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _LIBC.unshare(_NEW_OTHERS))
        return
    _call("unshare", _LIBC.unshare(_NEW_USER | _NEW_OTHERS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{nobody} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{nobody} {group} 1")


def _make_place(source: str, target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_dir():
        Path(target).mkdir(exist_ok=True)
    else:
        Path(target).touch()


def _build(view: dict[str, Any]) -> None:
    """Makes a new root of the view, in which nothing but /tmp can be written to, and forgets the old one."""
    _mount("none", "/", flags=_REC | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "mode=0755,size=1m")
    os.chdir("/tmp")
    Path("old").mkdir()
    _call("pivot_root", _LIBC.pivot_root(b".", b"old"))
    os.chdir("/")
    for source, target in view["shown"]:
        _make_place(f"/old{source}", target)
        _mount(f"/old{source}", target, flags=_BIND | _REC)
    for target, link in view["links"]:
        Path(link).symlink_to(target)
    for folder in view["emptied"]:
        _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, "mode=0755,size=4k")
    for device in view["devices"]:
        _make_place(f"/old{device}", device)
        _mount(f"/old{device}", device, flags=_BIND)
    Path("/tmp").mkdir()
    _call("umount", _LIBC.umount2(b"/old", _DETACH))
    Path("/old").rmdir()
    read_only = (ctypes.c_uint64 * 4)(_RDONLY | _NOSUID, 0, 0, 0)
    arguments = (ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, b"/", _AT_RECURSIVE, ctypes.byref(read_only))
    _call("mount_setattr", _LIBC.syscall(*arguments, ctypes.c_size_t(32)))
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"mode=1777,nr_inodes=4k,size={view['scratch_bytes']}")


def main() -> None:
    """Builds the sandbox, starts its first process, and waits for the end of it."""
    view, info = json.loads(sys.argv[1]), int(sys.argv[2])
    _unshare(view["nobody"])
    child = os.fork()
    if child == 0:
        os.close(info)
        _build(view)
        _LIBC.sethostname(b"sandbox", 7)
        os.chdir("/tmp")
        os.execve(view["command"][0], view["command"], view["environment"])
    os.write(info, json.dumps({"child-pid": child}).encode())
    os.close(info)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
