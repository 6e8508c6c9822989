"""The documents that are written from the configuration's types."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config.load import parse_config
from broker.config.reference import admission_page, reference_page, sample_file

DOCS = Path(__file__).resolve().parents[3] / "docs"

page = functools.cache(reference_page)
"""The page, written once: every key's JSON schema goes into it."""


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (DOCS / "configuration.md", page),
        (DOCS / "admission-configuration.md", admission_page),
        (DOCS / "sample/penstock.yaml", sample_file),
    ],
    ids=["page", "admission", "sample"],
)
def test_document_is_what_the_types_say(
    path: Path, make: Callable[[], str], update_golden: bool
) -> None:
    """The file in the project is the one that would be written now."""
    text = make()
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    else:
        assert path.read_text(encoding="utf-8") == text


def test_sample_is_a_valid_configuration() -> None:
    """Whoever starts from the sample starts without faults."""
    config = parse_config(sample_file(), "penstock.yaml")
    assert set(config.upstreams) == {"local", "lets-encrypt"}


def test_every_key_is_explained() -> None:
    """No row of the page lacks its meaning."""
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if row.split("|")[4].strip() == ""] == []
