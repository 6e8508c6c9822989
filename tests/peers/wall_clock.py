"""The wall clock of one real process, moved by days while everything that waits goes on as it was.

libfaketime moves waits along, so a program under it that waits for a second waits for days.  This
shim moves what the C library tells of the time of day and nothing else: certificates are judged by
the moved clock, by OpenSSL as by Python, and timers stay real, as on a machine whose clock is set.
"""

from __future__ import annotations

import datetime
import struct
import subprocess
from pathlib import Path
from typing import Final

from tests.peers.installation import find_command
from tests.peers.process import PeerFailed

__all__ = ["WallClock"]

COMPILE_SECONDS: Final = 60
"""Longest that a page of C may take to compile, in seconds."""

SOURCE: Final = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        abort(); /* a test that moves nothing would show nothing */
    void *shared = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED)
        abort();
    offset = shared;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
"""


class WallClock:
    """A clock that one process and its children go by, and a test moves."""

    def __init__(self, tmp: Path) -> None:
        self._library = tmp / "wall_clock.so"
        self._file = tmp / "wall_clock"
        self._file.write_bytes(struct.pack("=q", 0))
        self._compile(tmp / "wall_clock.c")

    def environment(self) -> dict[str, str]:
        """Return what the process has to be given."""
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK": str(self._file)}

    def move(self, length: datetime.timedelta) -> None:
        """Have the process see the real time and so much more; nothing is right again."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", int(length.total_seconds())))

    def _compile(self, source: Path) -> None:
        compiler = find_command("gcc")
        if compiler is None:
            raise PeerFailed("gcc is not installed; run tests/peers/install")
        source.write_text(SOURCE, "ascii")
        command = [str(compiler), "-O1", "-shared", "-fPIC", "-Wall", "-Werror"]
        done = subprocess.run(
            [*command, "-o", str(self._library), str(source)],
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise PeerFailed(f"the shim of the clock cannot be compiled: {done.stderr}")
