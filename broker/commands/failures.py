"""How a command fails: with a sentence, perhaps a hint, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from broker.issuance.errors import Broken
from broker.policy.yamlfile import Faults

__all__ = ["CommandFailed", "Misconfigured", "readable"]


class CommandFailed(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Misconfigured(CommandFailed):
    """The configuration or a policy is wrong, so nothing was tried."""

    exit_code = 2


@contextmanager
def readable(what: str = "configuration") -> Iterator[None]:
    """Turn faults of files into what the command line tells: all of them, a line each.

    *what* the files are is told with their number.
    """
    try:
        yield
    except Faults as found:
        for fault in found.faults:
            click.echo(str(fault), err=True)
        count = len(found.faults)
        counted = "1 fault" if count == 1 else f"{count} faults"
        raise Misconfigured(f"{counted} in the {what}") from found
    except Broken as error:
        raise Misconfigured(error.reason) from error
