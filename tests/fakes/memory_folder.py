"""A folder in memory, where the machine has one: nothing waits for a busy disk there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""


@contextmanager
def memory_folder(otherwise: Path | None = None) -> Iterator[Path]:
    """Give a folder that ends with the block; on a disk, in *otherwise*, if it must be.

    For tests that are about what is written, and not about the disk's part in it.
    """
    if MEMORY.is_dir():
        otherwise = MEMORY
    with tempfile.TemporaryDirectory(prefix="penstock-", dir=otherwise) as folder:
        yield Path(folder)
