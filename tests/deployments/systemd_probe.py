"""Tries what a service should not be able to do, and tells how each try ended; runs in its place.

    systemd_probe.py WRITABLE FOLDER...

WRITABLE is a folder that it may write into, the others are as may be.  It is copied into a machine
and started there in the place of our program, or by nobody in particular for comparison.  The
output is one JSON object: what was tried → ``done``, the name of the error, or a signal's.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)

NEW_USER_NAMESPACE = 0x10000000
NO_RANDOM_ADDRESSES = 0x0040000


def tried(do: Callable[[], object]) -> str:
    """Do it in a process of its own, and say how it ended."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            do()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return signal.Signals(-code).name
    return errno.errorcode.get(code, str(code)) if code else "done"


def write(folder: str) -> None:
    """Write a file into *folder* and remove it."""
    path = os.path.join(folder, "penstock-probe")
    with open(path, "w", encoding="ascii"):
        pass
    os.unlink(path)


def make_set_uid(folder: str) -> None:
    """Make a program in *folder* one that anybody runs as us."""
    path = os.path.join(folder, "penstock-probe")
    with open(path, "w", encoding="ascii"):
        pass
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)


def make_cgroup() -> None:
    """Make a cgroup and remove it."""
    os.mkdir("/sys/fs/cgroup/penstock-probe")
    os.rmdir("/sys/fs/cgroup/penstock-probe")


def mount() -> None:
    """Mount something and take it away again."""
    call("mount", b"probe", b"/mnt", b"tmpfs", 0, None)
    call("umount", b"/mnt")


def connect_to_manager() -> None:
    """Open a connection by which root has systemd do anything."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as manager:
        manager.connect("/run/systemd/private")


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library."""
    if getattr(LIBC, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main() -> None:
    """Try everything."""
    folders = sys.argv[1:]
    name = socket.gethostname().encode("ascii")
    tries: dict[str, Callable[[], object]] = {
        **{f"write {folder}": lambda folder=folder: write(folder) for folder in folders},
        "set-uid": lambda: make_set_uid(folders[0]),
        "cgroup": make_cgroup,
        "mount": mount,
        "chroot": lambda: os.chroot("/mnt"),
        "hostname": lambda: call("sethostname", name, len(name)),
        "namespace": lambda: call("unshare", NEW_USER_NAMESPACE),
        "personality": lambda: call("personality", NO_RANDOM_ADDRESSES),
        "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "manager": connect_to_manager,
        "others' /tmp": lambda: os.stat("/tmp/of-somebody"),
        "others' home": lambda: os.stat("/home/somebody/file"),
    }
    sys.stdout.write(json.dumps({what: tried(do) for what, do in tries.items()}) + "\n")


if __name__ == "__main__":
    main()
