"""Files and functions stay small, and what is larger has its reason written here."""

from tests.standards.sources import functions, product_files, read

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

LARGE_FILES: dict[str, str] = {
    "agents/wire.py": "the one vocabulary that both sides read, in one place",
    "broker/issuance/node_ports.py": "the same for nodes, deliveries and rollouts, in one place",
    "broker/web/operator.py": "Operations mirrors the command line, one list on purpose",
    "broker/issuance/ports.py": "all that the workflows ask of the world, in one place to read; "
    "declarations only",
    "broker/upstreams/acme.py": "one adapter, a method for each of the port's, and how it reads an "
    "order",
}
"""File → why it is one file."""

LARGE_FUNCTIONS: dict[str, str] = {}
"""``file::function`` → why it is one function."""


def test_file_is_small_or_has_a_reason() -> None:
    """A file is at most 400 lines long, or LARGE_FILES tells why; no reason outlives its cause."""
    lengths = {str(path): len(read(path).splitlines()) for path in product_files()}
    large = {path: length for path, length in lengths.items() if length > MAX_FILE_LINES}
    assert set(large) == set(LARGE_FILES), large


def test_functions_are_small_or_have_a_reason() -> None:
    """A function is at most 40 lines from its first statement's line, or the table tells why."""
    large = {}
    for path in product_files():
        for name, function in functions(path):
            # The docstring is for the reader and does not count.
            body = function.body[1:] if len(function.body) > 1 else function.body
            length = (function.end_lineno or 0) - body[0].lineno + 1
            if length > MAX_FUNCTION_LINES:
                large[f"{path}::{name}"] = length
    assert set(large) == set(LARGE_FUNCTIONS), large
