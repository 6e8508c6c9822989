"""The command `penstock-agent`.

In this version the agent has no work of its own yet: it can be installed and it
can tell its version.  It offers no subcommand rather than one that pretends.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from agents import __version__

PROGRAM: Final = "penstock-agent"

EXIT_MISUSED: Final = 2
"""Exit code for a command line that asks for nothing the program can do."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The sidecar of Penstock. This version can only tell its version: "
        "receiving and installing certificates is not built yet.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    build_parser().parse_args(arguments)
    print(f"{PROGRAM}: error: no work given, and this version has none to offer", file=sys.stderr)
    print(
        f"{PROGRAM}: hint: the agent does nothing yet but tell its version (--version); "
        "until it does, any ACME client can ask the broker for certificates",
        file=sys.stderr,
    )
    return EXIT_MISUSED


if __name__ == "__main__":
    sys.exit(main())
