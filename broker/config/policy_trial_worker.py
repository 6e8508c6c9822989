"""Policies tried in a process of their own; run as a file, never imported by the broker.

Configuration and files come on standard input, what is wrong with them goes to standard output.
Files are data here, never code; the process reads nothing else and writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.config.load import parse_config
from broker.config.model import Config
from broker.config.policies import join_policies
from broker.issuance.policy_ports import PolicyTexts
from broker.policy.parsing import parse_files
from broker.policy.yamlfile import Fault, Faults

__all__ = ["main", "try_policies"]

MEMORY_BYTES: Final = 1024**3
"""Most address space, in bytes; a set of 10,000 rules needs a fifth of it."""

CPU_SECONDS: Final = 30
"""Most processor time, in seconds: whoever started this may be gone and end nobody."""


def main() -> None:
    """Try what comes on standard input."""
    _be_the_first_to_go()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    given = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from our own parent
    sys.stdout.write(json.dumps(try_policies(*given)))
    sys.stdout.flush()


def _be_the_first_to_go() -> None:
    """Have the kernel end this process, and not who started it, where memory is short."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def try_policies(
    text: bytes, source: str, directories: Mapping[str, Mapping[str, bytes]]
) -> dict[str, Any]:
    """Return what is wrong with the set, or with the configuration that it is held against."""
    answer: dict[str, Any] = {"broken": None, "faults": [], "cases": 0}
    try:
        config = parse_config(text.decode("utf-8"), source)
    except (Faults, UnicodeDecodeError) as error:
        answer["broken"] = f"the broker's configuration cannot be used: {str(error)[:300]}"
        return answer
    try:
        texts = PolicyTexts(files=_files(config, directories))
        loaded = join_policies(config, texts, parse_files(texts.files), None)
    except Faults as found:
        answer["faults"] = [str(fault) for fault in found.faults]
    else:
        answer["cases"] = loaded.cases
    return answer


def _files(config: Config, directories: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return the files under the names that the broker will know them by; raises Faults."""
    is_one = len(directories) == 1 and len(config.policies or ()) == 1
    files: dict[str, bytes] = {}
    for directory, held in directories.items():
        for name, octets in held.items():
            if name.endswith(".yml"):
                hint = f"call it {name.removesuffix('.yml')}.yaml, or take it away"
                raise Faults([Fault(name, 1, "", "is not read for its name", hint)])
            files[name if is_one else f"{directory}/{name}"] = octets
    return files


if __name__ == "__main__":
    main()
