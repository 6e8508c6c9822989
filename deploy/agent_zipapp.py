"""Build the agent as one file that runs wherever Python is: ``dist/penstock-agent.pyz``.

The same tree gives the same octets, on any machine: files in the order of their names, one time
for all, nothing compressed by a library whose output depends on its version.  The agent has no
dependency, so its own modules are all there is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]

TARGET: Final = REPOSITORY / "dist" / "penstock-agent.pyz"

SHEBANG: Final = b"#!/usr/bin/env python3\n"

EARLIEST_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The time that each file in the archive has: the first that the format knows."""

MAIN: Final = '''\
"""The agent as one file."""

import sys

if sys.version_info < (3, 11):
    here = "%d.%d" % sys.version_info[:2]
    sys.exit("penstock-agent: error: Python 3.11 or later is needed, this is " + here)

from agents.cli import main

sys.exit(main())
'''


def contents() -> dict[str, bytes]:
    """Return what the archive holds, by name: the agent's modules, its licence, the way in."""
    package = REPOSITORY / "agents"
    found = {
        f"agents/{path.name}": path.read_bytes()
        for path in package.iterdir()
        if path.suffix == ".py" or path.name in {"LICENSE", "NOTICE", "py.typed"}
    }
    return {**found, "__main__.py": MAIN.encode()}


def build(target: Path) -> str:
    """Write the archive to *target* by one rename and return its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(SHEBANG)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for inner, octets in sorted(contents().items()):
                    entry = zipfile.ZipInfo(inner, EARLIEST_TIME)
                    entry.create_system = 3  # Unix, wherever it is built
                    entry.external_attr = 0o100644 << 16
                    archive.writestr(entry, octets)
        Path(name).chmod(0o755)
        Path(name).rename(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return hashlib.sha256(target.read_bytes()).hexdigest()


def main() -> int:
    """Build it and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=TARGET, help="file to write")
    target = parser.parse_args().target
    digest = build(target)
    sys.stdout.write(f"{digest}  {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
