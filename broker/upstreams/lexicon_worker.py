"""One change of one TXT record through a DNS provider's API, in a process of its own.

Run as a file with ``python -I``, never imported by the broker: the code of ninety providers, and
of all that they depend on, sees one provider's secret and nothing else.  The order comes as JSON
on standard input, the outcome goes as JSON to standard output.

Before any of that code is loaded the process gives up what it does not need, as far as the kernel
can take it away: reading files outside the Python installation and the system's own network
settings, writing any, starting programs, looking into other processes (Landlock), and speaking to
Unix sockets (seccomp), among which is the operator's.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib
import json
import os
import platform
import resource
import struct
import sys
import traceback
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, Final

NETWORK_FILES: Final = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/usr",
    "/lib",
    "/lib64",
    "/dev/null",
    "/dev/urandom",
)
"""What it takes to resolve a name and to verify a certificate."""

MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""Most address space, in bytes: a provider's libraries map some 200 MB, their pages far less."""

MAX_COMPLAINT_CHARS: Final = 1000
"""Longest account of a failure, in characters; it goes to the log of the broker."""


class _Landlock(IntEnum):
    """System calls and flags of Landlock (linux/landlock.h); the same on every architecture."""

    CREATE_RULESET = 444
    ADD_RULE = 445
    RESTRICT_SELF = 446
    VERSION = 1
    PATH_BENEATH = 1
    READ_FILE = 1 << 2
    READ_DIRECTORY = 1 << 3
    SCOPED = 0b11
    """Abstract Unix sockets and signals, to whoever is outside; from version 6 on."""


class _Process(IntEnum):
    """What prctl is asked for (linux/prctl.h)."""

    SET_DUMPABLE = 4
    SET_SECCOMP = 22
    SECCOMP_FILTER = 2
    SET_NO_NEW_PRIVILEGES = 38


class _Filter(IntEnum):
    """Instructions and answers of a seccomp filter (linux/filter.h, linux/seccomp.h)."""

    LOAD = 0x20
    JUMP_IF_EQUAL = 0x15
    RETURN = 0x06
    ALLOW = 0x7FFF0000
    REFUSE = 0x00050000 | 13
    """Fail with EACCES."""
    UNIX_FAMILY = 1


_RIGHTS_BY_VERSION: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""How many file rights each version of Landlock knows, from the first bit on."""

_SOCKET_CALLS: Final = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Architecture and number of the system call that makes a socket (linux/audit.h)."""


def main() -> int:
    """Do what standard input says; the exit status is 0 whenever an outcome was written."""
    # Libraries print.  What they print goes to standard error, the outcome where it belongs.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.buffer.read())
    os.close(0)
    confined = confine(task.get("files", ()))
    try:
        perform(task)
        outcome: dict[str, Any] = {"done": True}
    except Exception as error:
        outcome = {"done": False, **told(error)}
        text = "".join(traceback.format_exception_only(error)).strip()
        for secret in task["secrets"].values():
            text = text.replace(secret, "(secret)")
        sys.stderr.write(text[:MAX_COMPLAINT_CHARS])
    answer.write(json.dumps({**outcome, "confined": confined}))
    answer.close()
    return 0


def perform(task: dict[str, Any]) -> None:
    """Set or remove the record; either may have been done before."""
    # The client of the library would look for the zone with tldextract, which fetches a list
    # over the network, or with DNS: the zone is said, so the provider is used directly.
    from lexicon.config import ConfigResolver

    name = task["provider"]
    module = importlib.import_module(f"lexicon._private.providers.{name}")
    options: dict[str, str] = {}
    for key, value in {**task["options"], **task["secrets"]}.items():
        # Some providers ask for their options as the command line spells them.
        options[key.replace("-", "_")] = options[key.replace("_", "-")] = value
    settings = {
        "provider_name": name,
        "domain": task["zone"],
        "ttl": task["ttl_seconds"],
        name: options,
    }
    resolver: Any = ConfigResolver
    provider = module.Provider(resolver().with_dict(settings))
    provider.authenticate()
    try:
        record = ("TXT", task["name"], task["value"])
        if task["action"] == "cleanup":
            provider.delete_record(None, *record)
        elif not any(provider.list_records(*record)):
            provider.create_record(*record)
    finally:
        provider.cleanup()


def told(error: BaseException) -> dict[str, Any]:
    """Return what is said of *error*: its kind and status, never its text."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    is_status_passing = isinstance(status, int) and (status == 429 or status >= 500)
    is_network = "RequestException" in kinds and "HTTPError" not in kinds
    is_set_up = bool(kinds & {"MissingSchema", "InvalidSchema", "InvalidURL", "InvalidHeader"})
    is_passing = is_status_passing or (is_network and not is_set_up)
    is_missing = "ModuleNotFoundError" in kinds
    return {
        "error": type(error).__name__,
        "status": status if isinstance(status, int) else None,
        "passing": is_passing or "TimeoutError" in kinds or "ConnectionError" in kinds,
        "missing": getattr(error, "name", None) if is_missing else None,
    }


# ------------------------------------------------------------------------------ giving things up


def confine(files: Iterable[str]) -> list[str]:
    """Give up what is not needed, and return the names of what the kernel took."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_Process.SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_Process.SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return []
    taken = []
    if _restrict_files(libc, [*NETWORK_FILES, *_python_files(), *files]):
        taken.append("files")
    if _restrict_sockets(libc):
        taken.append("sockets")
    return taken


def _python_files() -> Iterator[str]:
    """Yield the directories of this installation and of its base, without the broker's own."""
    homes = {os.path.realpath(home) for home in (sys.prefix, sys.base_prefix)}
    yield from homes
    own = os.path.realpath(__file__).rsplit(os.sep, 3)[0]
    for entry in sys.path:
        if entry and os.path.realpath(entry) != own:
            yield entry


def _restrict_files(libc: ctypes.CDLL, allowed: Iterable[str]) -> bool:
    abi = libc.syscall(_Landlock.CREATE_RULESET, None, 0, _Landlock.VERSION)
    if abi < 1:
        return False
    rights = next(count for since, count in reversed(_RIGHTS_BY_VERSION) if abi >= since)
    attributes = struct.pack("=Q", (1 << rights) - 1)
    if abi >= 6:
        attributes += struct.pack("=QQ", 0, _Landlock.SCOPED)
    rules = libc.syscall(_Landlock.CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        for path in allowed:
            with contextlib.suppress(OSError):
                _allow_reading(libc, rules, path)
        return bool(libc.syscall(_Landlock.RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow_reading(libc: ctypes.CDLL, rules: int, path: str) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _Landlock.READ_FILE | (_Landlock.READ_DIRECTORY if os.path.isdir(path) else 0)
        libc.syscall(
            _Landlock.ADD_RULE, rules, _Landlock.PATH_BENEATH, struct.pack("=Qi", rights, handle), 0
        )
    finally:
        os.close(handle)


def _restrict_sockets(libc: ctypes.CDLL) -> bool:
    """Refuse Unix sockets: at one of them operator commands are taken."""
    known = _SOCKET_CALLS.get(platform.machine())
    if known is None:
        return False
    architecture, call = known

    def step(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
        return struct.pack("=HBBI", code, jump_true, jump_false, value)

    load, equal, answer = _Filter.LOAD, _Filter.JUMP_IF_EQUAL, _Filter.RETURN
    program = b"".join(
        (
            step(load, 0, 0, 4),  # the architecture
            step(equal, 0, 5, architecture),
            step(load, 0, 0, 0),  # the number of the call
            step(equal, 0, 2, call),
            step(load, 0, 0, 16),  # its first argument: the family
            step(equal, 1, 0, _Filter.UNIX_FAMILY),
            step(answer, 0, 0, _Filter.ALLOW),
            step(answer, 0, 0, _Filter.REFUSE),
        )
    )
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(steps))
    return bool(libc.prctl(_Process.SET_SECCOMP, _Process.SECCOMP_FILTER, header, 0, 0) == 0)


if __name__ == "__main__":
    sys.exit(main())
