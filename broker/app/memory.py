"""How the C library hands memory out and back, for a process with very many connections.

It knows neither what is kept in memory nor for whom.
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["hold_memory_apart"]

_M_TRIM_THRESHOLD: Final = -1
"""Parameter of mallopt(3): from how many free bytes on the end of the heap is given back."""

_M_MMAP_THRESHOLD: Final = -3
"""Parameter of mallopt(3): from how many bytes on a block is mapped on its own."""

_THRESHOLD_BYTES: Final = 128 * 1024
"""What glibc begins with.

Left to itself it raises both as soon as one larger block is freed.  Each TLS connection of uvloop
has a buffer of 256 KiB of which it touches a page: mapped on its own it costs that page, and on
the heap, where small blocks settle between what earlier ones touched, it costs more for as long
as the process lives.  With 10,000 agents connected the broker has 365 MiB more than at rest
instead of 449, and 101 MiB at rest instead of 117; a handshake costs a thirtieth more.
"""


def hold_memory_apart() -> None:
    """Have large blocks mapped on their own, whatever was freed before.

    Where the C library has no such parameters nothing happens: it costs memory and nothing else.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        mallopt(parameter, _THRESHOLD_BYTES)
