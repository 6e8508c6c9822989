"""Programs that the demonstration runs to their end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

__all__ = ["DemoFailed", "loopback_environment", "run_program"]


class DemoFailed(Exception):
    """The demonstration cannot go on; the text says what was tried and where its log is."""


async def run_program(
    what: str,
    command: Sequence[str],
    *,
    limit: timedelta,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run *command* and return its standard output; it does not outlive this call.

    Raises:
        DemoFailed: It cannot be run, failed, or was not done within *limit*.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DemoFailed(f"{what} cannot be run: {reason}") from error
    try:
        async with asyncio.timeout(limit.total_seconds()):
            out, err = await process.communicate()
    except TimeoutError:
        raise DemoFailed(f"{what} was not done in {limit.total_seconds():g} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        said = (err or out).decode(errors="replace").strip()
        raise DemoFailed(f"{what} failed: {said}")
    return out.decode(errors="replace")


def loopback_environment(**more: str) -> dict[str, str]:
    """Return our environment without its proxies: everything here is on this machine."""
    kept = {name: value for name, value in os.environ.items() if not _is_proxy(name)}
    return {**kept, **more}


def _is_proxy(name: str) -> bool:
    return name.lower() in {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy"}
