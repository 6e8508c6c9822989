"""The clock of real processes, moved by Debian's libfaketime: for hours that a test cannot wait.

Only the time of day moves; timers and distances stay real, as they do in a machine whose clock is
set.  Works for programs that ask the C library for the time: Python does, Go does not.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from tests.peers.process import PeerFailed

LIBRARIES: Final = "/usr/lib/*/faketime/libfaketime.so.1"
"""Where Debian's package libfaketime puts it, whatever the architecture."""


class MovedClock:
    """One clock that several processes share."""

    def __init__(self, tmp: Path) -> None:
        self._file = tmp / "clock"
        self.offset = datetime.timedelta()
        self._write()

    def environment(self) -> dict[str, str]:
        """Return what a process has to be given to follow this clock.

        Raises:
            PeerFailed: libfaketime is not installed.
        """
        found = sorted(Path("/").glob(LIBRARIES.lstrip("/")))
        if not found:
            raise PeerFailed("libfaketime is not installed: apt-get install libfaketime")
        return {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def now(self) -> datetime.datetime:
        """Return the time that the processes see."""
        return datetime.datetime.now(datetime.UTC) + self.offset  # noqa: TID251 - the real one

    def move(self, length: datetime.timedelta) -> None:
        """Have all of them see that *length* has passed."""
        self.offset += length
        self._write()

    def _write(self) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(f"+{self.offset.total_seconds():.0f}\n", "ascii")
        part.rename(self._file)
