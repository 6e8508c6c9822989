"""The written documents: links lead somewhere, decisions are listed, news is well-formed."""

import re
from pathlib import Path

import pytest

from tests.standards.sources import REPOSITORY, read

IGNORED = {".git", ".venv", ".venv-demo", ".venv-docs", "build", "dist"}


def documents() -> list[Path]:
    """Return every Markdown file of the project, relative to the repository."""
    return sorted(
        path.relative_to(REPOSITORY)
        for path in REPOSITORY.rglob("*.md")
        if not IGNORED & set(path.relative_to(REPOSITORY).parts)
        and not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
    )


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_to_files_that_exist(document: Path) -> None:
    """A relative link names a file or folder of the project."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", read(document), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [
        target
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (REPOSITORY / document.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_both_distributions_have_one_licence(name: str) -> None:
    """The agent's folder holds a copy, which must not drift."""
    assert read(f"agents/{name}") == read(name)


def test_every_decision_is_listed() -> None:
    """docs/adr/README.md links each record, and no two records share a number."""
    records = sorted(path.name for path in (REPOSITORY / "docs" / "adr").glob("[0-9]*.md"))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", read("docs/adr/README.md"))
    assert sorted(set(listed)) == records
    numbers = [name[:4] for name in records]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    "record",
    sorted(path.name for path in (REPOSITORY / "docs" / "adr").glob("[0-9]*.md")),
)
def test_decision_has_the_parts_of_the_template(record: str) -> None:
    """Every record has the headings of the template, in its order."""
    headings = [
        line for line in read("docs/adr/0000-template.md").splitlines() if line[:3] == "## "
    ]
    found = [line for line in read(f"docs/adr/{record}").splitlines() if line in headings]
    assert headings
    assert found == headings


def test_news_fragments_are_well_formed() -> None:
    """A fragment is named after its issue and kind, and holds one paragraph of whole sentences."""
    kinds = re.findall(
        r'^\[\[tool\.towncrier\.type\]\]\ndirectory = "(\w+)"', read("pyproject.toml"), re.M
    )
    assert "feature" in kinds
    for path in (REPOSITORY / "changes").iterdir():
        if path.name in {"README.md", ".gitignore"}:
            continue
        assert re.fullmatch(rf"\d+(\.\d+)?\.({'|'.join(kinds)})(\.\d+)?\.md", path.name), path.name
        text = path.read_text(encoding="utf-8").strip()
        assert text.endswith("."), path.name
        assert "\n\n" not in text, path.name
