"""Large blocks of memory are mapped on their own, where the C library can do that."""

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from broker.app.memory import hold_memory_apart

FREED_AND_MADE_AGAIN = """
import ctypes
from broker.app.memory import hold_memory_apart
if {apart}:
    hold_memory_apart()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(4 * 1024 * 1024))
made = libc.malloc(1024 * 1024)
heap = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]"))
begin, end = (int(part, 16) for part in heap.split()[0].split("-"))
print(begin <= made < end)
"""
"""Says whether a block lies on the heap, after a larger one was freed."""


def is_on_the_heap(*, apart: bool) -> str:
    """Return what a process of its own says."""
    done = subprocess.run(
        [sys.executable, "-c", FREED_AND_MADE_AGAIN.format(apart=apart)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_large_block_stays_off_the_heap() -> None:
    """Without it a freed block of 4 MiB has every smaller one come onto the heap."""
    assert is_on_the_heap(apart=True) == "False"
    assert is_on_the_heap(apart=False) == "True"


def test_library_without_thresholds_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs memory and nothing else."""

    class Bare:
        def __init__(self, name: Any) -> None:
            assert name is None

    monkeypatch.setattr(ctypes, "CDLL", Bare)
    hold_memory_apart()
