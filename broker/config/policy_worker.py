"""Policy files parsed in a process of their own; run as a file, never imported by the broker.

Names and contents come on standard input, what was made of them goes to standard output.  Files are
data here, never code; the process reads nothing else and writes nothing.
"""

from __future__ import annotations

import copyreg
import gc
import os
import pickle
import resource
import sys
from types import MappingProxyType
from typing import IO, Any, Final

from broker.policy.parsing import ParsedFiles, parse_files, read_only

__all__ = ["dump", "main"]

MEMORY_BYTES: Final = 2 * 1024**3
"""Most address space, in bytes; a set of 10,000 rules needs a tenth of it."""

NICENESS: Final = 5
"""How far this stands back behind the broker, which has orders to answer."""


def main() -> None:
    """Parse what comes on standard input and write what was made of it to standard output."""
    os.nice(NICENESS)
    gc.disable()  # nothing of what is made is to go before the end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    given = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from our own parent
    dump(parse_files(given), sys.stdout.buffer)
    sys.stdout.buffer.flush()
    # What was made need not be taken apart again piece by piece.
    os._exit(0)


def dump(parsed: ParsedFiles, out: IO[bytes]) -> None:
    """Write *parsed* so that ``pickle`` reads it."""
    pickler = pickle.Pickler(out, protocol=pickle.HIGHEST_PROTOCOL)
    # Documents hold read-only views, which pickle does not know.
    table: Any = copyreg.dispatch_table.copy()
    table[MappingProxyType] = lambda view: (read_only, (dict(view),))
    pickler.dispatch_table = table
    pickler.dump(parsed)


if __name__ == "__main__":
    main()
