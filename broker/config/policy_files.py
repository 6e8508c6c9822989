"""Policy files as they lie in their directories, read as of one moment.

A set that is half the old one and half the new one was never meant by anybody.  So a directory is
looked at before it is read and once more after: whatever changed meanwhile has it read again.  A
directory that Kubernetes mounts from a ConfigMap is a link that is swapped (``..data``), and what
it led to when it was looked at is read whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.policy_ports import PolicyTexts
from broker.policy.manifest import MAX_MANIFEST_BYTES, is_bundle_file
from broker.policy.yamlfile import MAX_TEXT_BYTES, Fault, Faults

__all__ = ["FOLDERS", "Trace", "look_at", "read_policy_files"]

FOLDERS: Final = ("", "communities", "shared", "cases")
"""Folders of a policy directory that are read; what lies elsewhere is none of ours."""

MAX_FILES: Final = 5_000
"""Most files of all directories: a thousand departments with their cases, twice over."""

MAX_SET_BYTES: Final = 32 * 1024 * 1024
"""Most octets of all files: parsing more takes minutes."""

CHUNK_BYTES: Final = 256 * 1024
"""How much of a file is read at once, in bytes."""

_SWAPPED: Final = "..data"
"""The link that Kubernetes swaps when a ConfigMap changes: all files change at once."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What stat(2) tells of a file: the same again means the same content."""

    name: str
    """Within the set."""
    path: str
    """Where it lay, all links of its directory followed."""
    shown: str
    """Where people find it."""
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    root: str
    """What its links must not lead out of."""

    @property
    def is_there(self) -> bool:
        """Return whether there was anything at the end of its links."""
        return self.inode != 0


def look_at(directories: Sequence[Path]) -> tuple[Trace, ...]:
    """Return the traces of all policy files, sorted by name.

    Raises:
        Broken: A directory is not there or cannot be listed, or there are too many files.
    """
    traces: list[Trace] = []
    for prefix, directory in _prefixed(directories):
        traces += _traces(directory, prefix)
        if len(traces) > MAX_FILES:
            raise Broken(f"policy directories hold more than {MAX_FILES} files, the limit")
    return tuple(sorted(traces, key=lambda trace: trace.name))


def _prefixed(directories: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield each directory with what names of its files begin with: nothing where it is alone."""
    taken = set[str]()
    for number, directory in enumerate(directories, start=1):
        prefix = f"{directory.name}/" if len(directories) > 1 else ""
        if prefix in taken:
            prefix = f"{number}-{prefix}"
        taken.add(prefix)
        yield prefix, directory


def _traces(directory: Path, prefix: str) -> Iterator[Trace]:
    root = _root_of(directory)
    for folder in FOLDERS:
        for name in _listed(root / folder, is_needed=not folder, shown=directory):
            inner = f"{folder}/{name}" if folder else name
            if name.endswith((".yaml", ".yml")) or is_bundle_file(inner):
                yield _trace(root, inner, f"{prefix}{inner}", directory / inner)


def _root_of(directory: Path) -> Path:
    """Return where *directory* leads at this moment."""
    swapped = directory / _SWAPPED
    root = swapped if swapped.is_symlink() else directory
    try:
        return root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise Broken(f"policy directory {directory} is not there") from error


def _listed(folder: Path, *, is_needed: bool, shown: Path) -> list[str]:
    """Return the names in *folder*; hidden ones are other programs' own."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_needed:
            raise Broken(f"policy directory {shown} is not there") from error
        return []
    except OSError as error:
        reason = (error.strerror or "it cannot be listed").lower()
        raise Broken(f"policy directory {shown} cannot be listed: {reason}") from error


def _trace(root: Path, inner: str, name: str, shown: Path) -> Trace:
    path = root / inner
    try:
        found = path.stat()
    except OSError:  # gone, or a link to nothing: reading it finds out which
        return Trace(name, str(path), str(shown), 0, 0, 0, 0, 0, str(root))
    return Trace(
        name,
        str(path),
        str(shown),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        str(root),
    )


def read_policy_files(directories: Sequence[Path]) -> PolicyTexts:
    """Return every policy file of *directories* as they lie there at one moment.

    Raises:
        Unreachable: They are being changed: read them again soon.
        Broken: A directory is not there or cannot be listed, or there is too much.
        Faults: Files that cannot be read, or that nobody would read.
    """
    before = look_at(directories)
    files: dict[str, bytes] = {}
    bundle: dict[str, bytes] = {}
    faults: list[Fault] = []
    room = MAX_SET_BYTES
    for trace in before:
        try:
            octets = _read(trace)
        except Faults as found:
            faults += found.faults
            continue
        room -= len(octets)
        if room < 0:
            raise Broken(f"policy files are larger together than the limit, {MAX_SET_BYTES} bytes")
        (bundle if is_bundle_file(trace.name) else files)[trace.name] = octets
    if look_at(directories) != before:
        raise Unreachable("policy files are being changed")
    if faults:
        raise Faults(faults)
    places = {trace.name: trace.shown for trace in before}
    return PolicyTexts(files=files, bundle=bundle, places=places)


def _read(trace: Trace) -> bytes:
    """Return the content of one file.

    Raises:
        Faults: It is none that can be read; or it is gone, which the second look finds.
    """
    if trace.name.endswith(".yml"):
        wanted = Path(trace.shown).with_suffix(".yaml").name
        raise _fault(trace, "is not read for its name", f"call it {wanted}, or take it away")
    if not trace.is_there:
        raise _fault(trace, "leads to nothing", "a link whose end is missing")
    if not Path(os.path.realpath(trace.path)).is_relative_to(trace.root):
        # What faults quote would show a file of ours to whoever may put a link here.
        raise _fault(trace, "leads out of the policy directory", "put the file itself there")
    limit = MAX_MANIFEST_BYTES if is_bundle_file(trace.name) else MAX_TEXT_BYTES
    try:
        # A pipe would be waited for forever without O_NONBLOCK.
        descriptor = os.open(trace.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _fault(trace, f"cannot be read: {_reason(error)}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _fault(trace, "is no regular file")
        if found.st_size > limit:
            size = f"is {found.st_size} bytes long, the limit is {limit} bytes"
            raise _fault(trace, size, "several files are read as one policy set")
        return _content(descriptor, limit)
    except OSError as error:
        raise _fault(trace, f"cannot be read: {_reason(error)}") from error
    finally:
        os.close(descriptor)


def _content(descriptor: int, limit: int) -> bytes:
    made = bytearray()
    while len(made) <= limit and (chunk := os.read(descriptor, CHUNK_BYTES)):
        made += chunk
    return bytes(made[: limit + 1])


def _reason(error: OSError) -> str:
    return (error.strerror or "an unknown failure").lower()


def _fault(trace: Trace, message: str, hint: str | None = None) -> Faults:
    return Faults([Fault(trace.shown, 1, "", message, hint)])
