"""docs/standards.md and the citations in the code keep their word."""

import ast
import re

import pytest

from broker.protocol import drafts
from tests.standards.sources import REPOSITORY, product_files, read, table_rows, tree

FIRST_COLUMN = "Where"

DOCUMENT = re.compile(
    r"(?:RFC\s\d{4,5}|draft-[a-z0-9-]+-\d\d|FIPS\s\d+(?:-\d)?|NIST\sSP\s[\d-]+[A-Za-z]?"
    r"|X\.\d{3}|PKCS\s#\d+|CA/Browser\sForum\sBR|YAML\s1\.2\.2|\{drafts\.[A-Z_]+\}|drafts\.[A-Z_]+)"
)
"""Names a document may be cited by: unmoving ones, so a draft with its revision.

``drafts.PROFILES`` stands for the draft and revision that broker/protocol/drafts.py pins.
"""

SECTION = r"(?:[A-Z]|\d+)(?:\.\d+)*(?!\w)"

CITATION = re.compile(
    rf"{DOCUMENT.pattern},?\s§§?{SECTION}(?:(?:,|\sand|\sor|,\sand|\sto|–)\s?§?{SECTION})*"
)
"""A document with its section, and further sections of the same document behind it."""

NOT_YET = re.compile(r"not yet \(#\d+\)")
"""A line that has no test says so and names the issue that will bring it."""

TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+(?:::\w+)?)`")


def bare_sections(text: str) -> list[str]:
    """Return the surroundings of every section sign that no document stands in front of."""
    # Comments and docstrings break lines; a citation may too.
    joined = re.sub(r"\s*\n\s*(?:#:?\s?)?", " ", text)
    covered = [match.span() for match in CITATION.finditer(joined)]
    return [
        joined[max(0, sign.start() - 40) : sign.end() + 12]
        for sign in re.finditer("§", joined)
        if not any(start <= sign.start() < end for start, end in covered)
    ]


def drafts_named(text: str) -> list[str]:
    """Return the Internet-Drafts that *text* names."""
    return re.findall(r"\bdraft-[a-z]+-[a-z0-9-]+", text)


def has_test(path: str, name: str) -> bool:
    """Tell whether the file has a test of that name, ``Class::test`` included."""
    if not (REPOSITORY / path).is_file():
        return False
    body: list[ast.stmt] = tree(path).body
    for part in name.split("::"):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        found = [node for node in body if isinstance(node, kinds) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return name.split("::")[-1].startswith("test_")


def lines() -> list[list[str]]:
    """Return the lines of docs/standards.md."""
    return table_rows("docs/standards.md", FIRST_COLUMN)


def test_the_table_is_there() -> None:
    """The document has lines to check; an empty one would pass every other test."""
    assert len(lines()) >= 40


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[0])
def test_line_is_whole_and_its_tests_exist(line: list[str]) -> None:
    """Each line cites document and section, and names tests that exist or an open issue."""
    assert len(line) == 4, f"four columns expected: {line}"
    where, what, how, shown = line
    assert what
    assert how
    assert not bare_sections(where), f"no document in front of a section: {where}"
    assert re.search(DOCUMENT, where), f"no document named: {where}"
    if NOT_YET.fullmatch(shown):
        return
    named = TEST_ID.findall(shown)
    rest = TEST_ID.sub("", shown).strip(" ,;")
    assert named, f"neither a test nor 'not yet (#issue)': {shown}"
    assert not rest, f"not a test id: {rest}"
    missing = [f"{path}::{name}" for path, name in named if not has_test(path, name)]
    assert not missing, f"no such test: {', '.join(missing)}"


def test_every_section_is_cited_with_its_document() -> None:
    """A section sign without its document tells a reader nothing."""
    bare = {str(path): bare_sections(read(path)) for path in product_files()}
    assert {path: found for path, found in bare.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        pytest.param("as RFC 8555 §7.4 says", 0, id="document and section"),
        pytest.param("as RFC 8555\n    # §7.4 says", 0, id="broken over two comment lines"),
        pytest.param("RFC 8555 §7.4, §8.1 and §10.2", 0, id="several sections of one document"),
        pytest.param("RFC 8737 §3, RFC 8738 §6", 0, id="two documents"),
        pytest.param("draft-ietf-acme-profiles-01 §3", 0, id="draft with its revision"),
        pytest.param("as §7.4 says", 1, id="bare"),
        pytest.param("RFC 8555 says much; §7.4 says more", 1, id="document too far off"),
        pytest.param("draft-ietf-acme-profiles §3", 1, id="draft without its revision"),
    ],
)
def test_citations_are_told_from_bare_sections(text: str, bare: int) -> None:
    """The check itself lets pass what is well-formed and catches what is not."""
    assert len(bare_sections(text)) == bare


def test_drafts_are_named_in_one_file_only() -> None:
    """What an unfinished draft says may change, so one file knows which revision is meant."""
    naming = {str(path) for path in product_files() if drafts_named(read(path))}
    assert naming <= {"broker/protocol/drafts.py"}


def test_the_document_cites_drafts_in_the_revisions_that_are_pinned() -> None:
    """What a line says of a draft was read in the revision that the code was written from."""
    pinned = {str(value) for value in vars(drafts).values() if isinstance(value, drafts.Draft)}
    cited = {name for line in lines() for name in drafts_named(line[0])}
    assert cited == pinned
