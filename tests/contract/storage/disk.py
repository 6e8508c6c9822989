"""What a power cut would leave of a store, worked out from the system calls of its process.

strace writes down every write and every fsync.  A disk here keeps only what an fsync has
covered, and loses for good what stood in the page cache when an fsync failed: the strictest
reading of what a file system promises.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

WORKER_SECONDS = 45
"""Longest that a worker under strace may take, in seconds."""

_CALLS = "pwrite64,fdatasync,fsync,ftruncate,write,unlink"

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that has returned."""

    name: str
    path: str
    data: bytes
    number: int
    """The offset of a write, or the length that a file is cut to."""
    is_done: bool


@dataclass(slots=True)
class File:
    """A file as the disk has it, and what only the page cache has."""

    kept: bytearray
    cached: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        """Bring the cache to the disk."""
        for call in self.cached:
            if call.name == "ftruncate":
                del self.kept[call.number :]
                self.kept.extend(b"\0" * (call.number - len(self.kept)))
            else:
                end = call.number + len(call.data)
                self.kept.extend(b"\0" * (end - len(self.kept)))
                self.kept[call.number : end] = call.data
        self.cached.clear()


class Disk:
    """The files of one folder, as they would be found after a power cut."""

    def __init__(self, folder: Path) -> None:
        """Begin with what lies in *folder* now, all of it on the disk."""
        self.files = {str(path): File(bytearray(path.read_bytes())) for path in folder.iterdir()}

    def follow(self, call: Call) -> None:
        """Take note of what *call* did."""
        if call.name == "unlink":
            self.files.pop(call.path, None)
        elif call.name in {"fdatasync", "fsync"}:
            file = self.files.get(call.path)
            if file is not None and call.is_done:
                file.sync()
            elif file is not None:
                file.cached.clear()
        elif call.is_done:
            self.files.setdefault(call.path, File(bytearray())).cached.append(call)

    def write_to(self, folder: Path) -> None:
        """Write what the disk has into *folder*; the shared memory of SQLite is never there."""
        folder.mkdir()
        for path, file in self.files.items():
            if not path.endswith(("-shm", ".lock")):
                (folder / Path(path).name).write_bytes(file.kept)


def run_worker(plan: str, store: Path, *, inject: Sequence[str] = ()) -> tuple[list[Call], int]:
    """Run the worker under strace, with faults injected, and return its calls and exit status."""
    trace = store.parent.with_name("trace")
    command = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(trace), "-e", _CALLS]
    for fault in inject:
        command += ["-e", f"inject={fault}"]
    command += [sys.executable, "-m", "tests.contract.storage.worker", plan, str(store)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        capture_output=True,
        timeout=WORKER_SECONDS,
        check=False,
    )
    # strace ends itself the way its tracee ended: 0, or by the same signal.
    calls = list(read_trace(trace.read_text(encoding="ascii").splitlines()))
    assert any(call.path == "stdout" for call in calls), done.stderr.decode()
    return calls, done.returncode


def said(calls: Sequence[Call]) -> list[list[str]]:
    """Return the lines that the worker wrote, as words."""
    return [call.data.decode().split() for call in calls if call.path == "stdout"]


def read_trace(lines: Sequence[str]) -> Iterator[Call]:
    """Yield the calls of a trace in the order in which they returned."""
    begun: dict[str, str] = {}
    for line in lines:
        if match := _BEGUN.fullmatch(line):
            begun[match[1]] = match[3]
        elif match := _ENDED.match(line):
            yield from _call(match[2], begun.pop(match[1]) + match[3], int(match[4]))
        elif match := _WHOLE.match(line):
            yield from _call(match[2], match[3], int(match[4]))


def _call(name: str, arguments: str, result: int) -> Iterator[Call]:
    texts = [bytes.fromhex(one.replace("\\x", "")) for one in _ESCAPED.findall(arguments)]
    number = 0
    if name in {"pwrite64", "ftruncate"}:
        number = int(arguments.rpartition(", ")[2])
    path = texts[0].decode()
    data = texts[1] if len(texts) > 1 else b""
    if name == "write":
        # Python writes byte code and its pipes; only what the worker says counts.
        if not arguments.startswith("1<"):
            return
        path = "stdout"
    yield Call(name, path, data, number, result >= 0)
