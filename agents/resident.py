"""Turns the command into the resident process: Python alone, in as little memory as it needs.

The process replaces itself, under the same number: without ``site`` and what packages hang into it,
with one heap for all its threads, and without what is imported and never used.  Together that is
4 MiB less for as long as the agent runs.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Final

__all__ = ["become_resident", "boot", "defer", "is_resident", "leave_when_stopped"]

MARK: Final = "MALLOC_ARENA_MAX"
"""glibc's setting for how many heaps threads share; its own default is eight for each core."""

_BOOT: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from agents.resident import boot; sys.exit(boot(sys.argv[2:]))"
)

DEFERRED: Final = "inspect"
"""What ``dataclasses`` imports and, on Python 3.11, never uses for classes that have a docstring;
it brings the compiler's own modules along, 1 MiB."""

Replace = Callable[..., object]


def is_resident(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process is the one that stays."""
    return bool(sys.flags.isolated and sys.flags.no_site and environment.get(MARK))


def leave_when_stopped() -> None:
    """Have SIGTERM end the process at once, until the agent has a handler of its own.

    The first process of a container is not ended by a signal that it has no handler for: a pod
    that is deleted while it starts would wait for its whole grace period.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: object) -> None:
    os._exit(0)


def become_resident(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] = os.environ,
    replace: Replace = os.execve,
) -> None:
    """Begin anew with the same arguments; returns if that cannot be done, and then this goes on."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    words = [sys.executable, "-I", "-S", "-c", _BOOT, home, "penstock-agent", *arguments]
    if not sys.executable:
        return
    # What comes while there is no handler waits, and is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        replace(sys.executable, words, {MARK: "1", **environment})
    except OSError:
        return
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def defer(name: str) -> None:
    """Have the module *name* loaded when something of it is first used, not when it is imported.

    The library's own LazyLoader loads at the second import statement already.
    """
    if name in sys.modules:
        return
    stand_in = types.ModuleType(name)

    def load(attribute: str) -> object:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in.__getattr__ = load  # type: ignore[method-assign]  # a module's own, as PEP 562 has it
    sys.modules[name] = stand_in


def boot(arguments: Sequence[str]) -> int:
    """Run the command in the process that stays."""
    leave_when_stopped()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    defer(DEFERRED)
    from agents.cli import main

    return main(arguments)
