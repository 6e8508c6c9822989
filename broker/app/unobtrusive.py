"""Large things made on a thread while the event loop goes on.

Python's threads share one interpreter.  Whoever wants it waits for its holder's turn to end, which
takes five milliseconds unless something else is said; and a full garbage collection stops all of
them for as long as it goes through every object, a tenth of a second for ten thousand rules.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["set_apart", "unobtrusive"]

TURN_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while others want it, in seconds."""


@contextmanager
def unobtrusive() -> Iterator[None]:
    """Have no collection, and short turns, until what is inside has been made.

    One at a time: the settings are those of the whole process.
    """
    turn, is_collecting = sys.getswitchinterval(), gc.isenabled()
    gc.disable()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        if is_collecting:
            gc.enable()


def set_apart() -> None:
    """Have all that is alive now left out of garbage collections from here on.

    What nothing refers to any more is freed all the same; only cycles among it are not.
    """
    gc.freeze()
