"""A page for each type of problem, where ``Link rel="help"`` leads."""

import pytest

from broker.protocol.problems import ProblemType
from broker.web.links import Links
from tests.unit.web.conftest import ORIGIN, Site


@pytest.mark.parametrize("kind", list(ProblemType), ids=lambda kind: kind.token)
async def test_every_type_has_its_page(site: Site, kind: ProblemType) -> None:
    """In plain text, with what the table says of it."""
    url = Links(ORIGIN, {"default"}).help(kind)
    answer = await site.client.send("GET", url)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    assert kind.urn in text
    assert kind.sentence in text
    assert kind.source in text


async def test_page_of_no_type_is_404(site: Site) -> None:
    """With a problem document like any other."""
    answer = await site.client.send("GET", f"{ORIGIN}/acme/help/nothing")
    assert (answer.status, answer.problem) == (404, "malformed")
