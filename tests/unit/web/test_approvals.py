"""The page that ``instance`` leads to."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from aiohttp import web

from broker.issuance.approval_ports import ApprovalKind, ApprovalRecord, ApprovalStatus
from broker.issuance.approval_terms import Terms
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem
from broker.web.approvals import approval_page
from tests.fakes.clock import START
from tests.fakes.world import dns

APPROVAL_ID = "0123456789abcdef" * 2

SECRETS = ("anna", "ticket=7", "mailto:ben@corp.example", "10.1.2.3", "account-1", "night watch")
"""What is kept of a request, and nobody's who holds its URL alone."""

RECORD = ApprovalRecord(
    approval_id=APPROVAL_ID,
    kind=ApprovalKind.NAMES,
    community="default",
    status=ApprovalStatus.WAITING,
    holder="account-1",
    asker="account:account-1",
    identifiers=(dns("www.people.example.com"),),
    profile="server",
    subject_sha256="00",
    terms=Terms(
        people=2, answer_within=timedelta(days=7), holds=timedelta(days=30), evidence=("ticket",)
    ).facts(),
    asked_by={"people": ["anna", "mailto:ben@corp.example"], "address": "10.1.2.3"},
    asked_at=START,
    last_asked_at=START,
    times_asked=1,
    answer_by=START + timedelta(days=7),
    reason="night watch",
)


class Kept:
    """One approval, as the registration authority reads it."""

    def __init__(self, record: ApprovalRecord) -> None:
        self.record = record

    async def read(self, approval_id: str, /) -> ApprovalRecord:
        """Return the one there is."""
        if approval_id != self.record.approval_id:
            raise Problem(None, "there is no such approval", status=404, raw_type="malformed")
        return self.record


async def get(record: ApprovalRecord) -> web.Response:
    """Return what is answered to whoever has the URL of *record*."""
    return await approval_page(Kept(record), "default", APPROVAL_ID)


async def shown(record: ApprovalRecord) -> str:
    """Return the page of *record*."""
    return (await get(record)).text or ""


async def test_page_says_what_is_asked_and_where_it_stands() -> None:
    """In plain words, with the times that matter to whoever waits."""
    page = await shown(RECORD)
    assert "It waits for 2 people to approve it; you need do nothing until then." in page
    for told in ("www.people.example.com", "server", "2026-03-08T12:00:00Z", APPROVAL_ID):
        assert told in page


@pytest.mark.parametrize("status", list(ApprovalStatus))
async def test_page_tells_nothing_that_a_stranger_should_not_see(status: ApprovalStatus) -> None:
    """In no state: neither who decides, nor on what evidence, nor who asks."""
    page = await shown(replace(RECORD, status=status, holds_until=START))
    assert f"<td>{status}</td>" in page
    assert not [word for word in SECRETS if word in page]


async def test_page_runs_and_loads_nothing() -> None:
    """Whatever a name looks like, which is escaped besides."""
    odd = Identifier(IdentifierType.DNS, "<script>alert(1)</script>")
    answer = await get(replace(RECORD, identifiers=(odd,)))
    assert "<script" not in (answer.text or "")
    assert "&lt;script&gt;" in (answer.text or "")
    assert answer.content_type == "text/html"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.findall(r"(?i)<(a|form|img|link|iframe)\b|\bon[a-z]+=", answer.text or "")


async def test_page_has_one_style_and_the_browser_takes_no_other() -> None:
    """The digest in the header is that of the style that stands there."""
    answer = await get(RECORD)
    [style] = re.findall(r"<style>(.*?)</style>", answer.text or "")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in answer.headers["Content-Security-Policy"]


async def test_account_is_shown_without_names() -> None:
    """There are none yet."""
    page = await shown(replace(RECORD, kind=ApprovalKind.ACCOUNT, identifiers=(), profile=""))
    assert "<td>an account</td>" in page


@pytest.mark.parametrize(
    ("community", "approval_id"),
    [("lab", APPROVAL_ID), ("default", "f" * 32)],
    ids=["other-community", "unknown"],
)
async def test_what_is_not_there_is_not_found(community: str, approval_id: str) -> None:
    """Another community's is not there."""
    with pytest.raises(Problem, match="there is no such approval") as refused:
        await approval_page(Kept(RECORD), community, approval_id)
    assert refused.value.status == 404


async def test_broker_without_approvals_has_no_page() -> None:
    """As if there were none of that id."""
    with pytest.raises(Problem, match="there is no such approval"):
        await approval_page(None, "default", APPROVAL_ID)
