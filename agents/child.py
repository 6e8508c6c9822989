"""The short-lived child that has to do with keys and certificates.

The resident process never loads a library of cryptography and never holds a private key: it hands a
piece of work to ``agents.crafting`` in a process of its own, as JSON on standard input, and reads
the answer from standard output.  Whatever goes wrong there ends with that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["CHILD_SECONDS", "ChildFault", "craft_command", "run_child", "run_children"]

CHILD_SECONDS: Final = 120.0
"""How long a piece of work may take, in seconds.  An RSA key of 4096 bits takes a slow device a
minute; all else takes less than one."""

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Largest answer that is believed, in bytes: facts of 5,000 certificates measure 5 MiB."""

_BOOTSTRAP: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from agents.crafting import main; raise SystemExit(main())"
)


class ChildFault(Exception):
    """The work was not done; nothing that it would have made is to be relied upon.

    ``reason`` is for people and holds nothing secret.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def craft_command() -> list[str]:
    """Return the argument list that starts the child, whether this is a folder or a zipapp.

    ``-I`` keeps the environment's and the working directory's modules out; the place that this very
    package was read from is named instead, behind the standard library.
    """
    home = str(Path(__file__).resolve().parent.parent)
    return [sys.executable, "-I", "-c", _BOOTSTRAP, home]


def run_child(work: Mapping[str, Any], *, timeout: float = CHILD_SECONDS) -> dict[str, Any]:
    """Have one piece of work done and return its answer.

    *work* names it in ``do``; ``agents.crafting`` lists what there is.

    Raises:
        ChildFault: It could not be done, or took longer than *timeout* seconds.
    """
    document = _converse(work, timeout)
    return _answer(document)


def run_children(
    works: Sequence[Mapping[str, Any]], *, timeout: float = CHILD_SECONDS
) -> list[dict[str, Any] | ChildFault]:
    """Have several pieces done by one child, each for itself; a fault stands in the place of its
    answer.

    Raises:
        ChildFault: The child itself failed, or took longer than *timeout* seconds for all of them.
    """
    answers = _answer(_converse({"do": "several", "works": list(works)}, timeout)).get("answers")
    if not isinstance(answers, list) or len(answers) != len(works):
        raise ChildFault("the crafting child did not answer everything it was asked")
    return [_answer_or_fault(one) for one in answers]


def _answer_or_fault(document: Any) -> dict[str, Any] | ChildFault:
    try:
        return _answer(document)
    except ChildFault as fault:
        return fault


def _answer(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ChildFault("the crafting child gave no answer that can be read")
    if "fault" in document:
        raise ChildFault(str(document["fault"]))
    return document


def _converse(work: Mapping[str, Any], timeout: float) -> Any:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        child = subprocess.Popen(  # a list of arguments, and all of them are ours
            craft_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise ChildFault(f"the crafting child cannot be started: {error.strerror}") from None
    with child:
        try:
            output, complaint = child.communicate(json.dumps(work).encode(), timeout)
        except subprocess.TimeoutExpired:
            _end(child)
            raise ChildFault(f"{work.get('do')} took longer than {timeout:g} s") from None
        except BaseException:
            _end(child)
            raise
    if child.returncode != 0:
        raise ChildFault(_why_it_ended(child.returncode, complaint))
    if len(output) > MAX_ANSWER_BYTES:
        raise ChildFault(f"an answer of {len(output)} bytes is past {MAX_ANSWER_BYTES}")
    try:
        return json.loads(output)
    except ValueError:
        raise ChildFault("the crafting child gave no answer that can be read") from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child with whatever programs it started; it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def _why_it_ended(code: int, complaint: bytes) -> str:
    """Say how the child ended: a traceback's last line names the kind of error, and no more of it
    is passed on, for its text may hold what was being worked on."""
    if code < 0:
        return f"the crafting child was ended by signal {-code}"
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    kind = lines[-1].partition(":")[0][:80] if lines else "no reason given"
    return f"the crafting child ended with {code} ({kind})"
