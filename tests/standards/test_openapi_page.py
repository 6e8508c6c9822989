"""The description of the operator API that is committed is the one that is served."""

from broker.app.operator_access import summaries
from broker.web.openapi import description_text
from tests.standards.sources import REPOSITORY, read

PAGE = "docs/openapi.json"


def test_description_is_what_was_reviewed(update_golden: bool) -> None:
    """What changes for clients is seen in a diff."""
    text = description_text(summaries())
    if update_golden:
        (REPOSITORY / PAGE).write_text(text, "utf-8")
    assert read(PAGE) == text, "run make golden"
