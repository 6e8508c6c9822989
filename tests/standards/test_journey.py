"""docs/journey.md names rooms, functions and types that exist."""

import importlib
import re

import pytest

from tests.standards.sources import PRODUCT, REPOSITORY, read, table_rows

STEPS = table_rows("docs/journey.md", "Step")

NOT_YET = re.compile(r"not yet \(#\d+\)")


def names_of(step: list[str]) -> list[str]:
    """Return the dotted names that a step's last column gives in backticks."""
    return re.findall(r"`([\w.]+)`", step[-1])


def has_name(dotted: str) -> bool:
    """Tell whether *dotted* leads to a module of ours or to something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        folder = REPOSITORY.joinpath(*parts[:length])
        if folder.with_suffix(".py").is_file() or (folder / "__init__.py").is_file():
            found: object = importlib.import_module(".".join(parts[:length]))
            for attribute in parts[length:]:
                if attribute in getattr(found, "__dataclass_fields__", {}):
                    return True
                if not hasattr(found, attribute):
                    return False
                found = getattr(found, attribute)
            return True
    return False


def test_twelve_steps_in_order() -> None:
    """The way of an order is told in twelve steps."""
    assert [step[0] for step in STEPS] == [str(number) for number in range(1, 13)]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"step {step[0]}")
def test_names_in_step_exist(step: list[str]) -> None:
    """Each step names code of ours, all of which is there, or the issue that will bring it."""
    names = names_of(step)
    assert names or NOT_YET.search(step[-1]), "a step names its code"
    assert [name for name in names if name.split(".")[0] not in PRODUCT] == []
    assert [name for name in names if not has_name(name)] == []


@pytest.mark.parametrize(
    "document", ["docs/journey.md", "docs/adr/0006-rooms-beside-the-picture.md"]
)
def test_names_anywhere_in_the_document_exist(document: str) -> None:
    """What a document names with its package is there, in a table or not."""
    names = re.findall(r"`((?:broker|agents)\.[\w.]+)`", read(document))
    assert [name for name in names if not has_name(name)] == []


def test_a_name_that_is_not_there_is_noticed() -> None:
    """The check itself can fail."""
    assert has_name("agents.cli.main")
    assert not has_name("agents.cli.no_such_name")
    assert not has_name("agents.no_such_room")
