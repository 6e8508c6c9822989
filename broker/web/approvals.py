"""The page that ``instance`` leads to: what is asked, and where it stands.

Whoever has the URL has it from the requester, and its id cannot be guessed.  All the same the page
tells nothing that the requester did not say or is not told: not who decides, not on what evidence,
not who else asks.  There is nothing to click: people who decide do so by command or API.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from aiohttp import web

from broker.issuance.approval_ports import ApprovalKind, ApprovalRecord, ApprovalStatus
from broker.issuance.approval_terms import Terms
from broker.protocol.encoding import format_timestamp
from broker.protocol.problems import Problem, ProblemType
from broker.web.links import ID_PATTERN
from broker.web.workflows import Approvals

__all__ = ["add_approvals", "approval_page"]

STYLE: Final = (
    "body{font-family:sans-serif;line-height:1.5;max-width:45em;margin:2em auto;padding:0 1em}"
    "th{text-align:left;vertical-align:top;padding-right:2em}td{overflow-wrap:anywhere}"
)
"""How the page looks; the browser takes this style alone, by its digest."""

_STYLE_SHA256: Final = base64.b64encode(hashlib.sha256(STYLE.encode("ascii")).digest()).decode()

HEADERS: Final = {
    # Nothing is loaded, run, framed or told to others, whatever the names in the page are.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_SHA256}';"
        " frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

MAX_SHOWN: Final = 100
"""Names on the page: as many as one order has."""

_STANDS: Final = {
    ApprovalStatus.WAITING: "It waits for {people} to approve it; you need do nothing until then.",
    ApprovalStatus.APPROVED: "It is approved. Run your client again, or let it run by its timer.",
    ApprovalStatus.DUE: "It was approved, and has to be approved anew: the evidence is too old, or "
    "policy asks for more than it did.",
    ApprovalStatus.SUSPENDED: "It was approved, and the approval is suspended for now.",
    ApprovalStatus.DENIED: "It was not approved.",
    ApprovalStatus.EXPIRED: "Its time is over. Run your client again to ask anew.",
    ApprovalStatus.WITHDRAWN: "The approval was withdrawn.",
}


def add_approvals(app: web.Application, base: str, approvals: Approvals | None) -> None:
    """Serve the pages below *base*, the path of a community."""

    async def page(request: web.Request) -> web.StreamResponse:
        place = request.match_info
        return await approval_page(approvals, place["community"], place["approval_id"])

    app.router.add_get(f"{base}/approval/{{approval_id:{ID_PATTERN}}}", page, name="approval")


async def approval_page(
    approvals: Approvals | None, community: str, approval_id: str
) -> web.Response:
    """Return the page of a request of *community*.

    Raises:
        Problem: There is none; another community's is none.
    """
    found = None if approvals is None else await approvals.read(approval_id)
    if found is None or found.community != community:
        raise Problem(ProblemType.MALFORMED, "there is no such approval", status=404)
    return web.Response(text=_page(found), content_type="text/html", headers=HEADERS)


def _page(record: ApprovalRecord) -> str:
    terms = Terms.read(record.terms)
    people = "one person" if terms.people == 1 else f"{terms.people} people"
    rows = [
        ("Community", record.community),
        *_asked(record),
        ("Asked", _time(record.asked_at)),
        ("Status", str(record.status)),
        *_times(record),
    ]
    return "".join(
        (
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>Request for approval: {record.status}</title>",
            f"<style>{STYLE}</style></head><body>\n",
            "<h1>Request for approval</h1>\n<p>",
            _STANDS[record.status].format(people=people),
            "</p>\n<table>\n",
            *(f"<tr><th scope='row'>{name}</th><td>{text}</td></tr>\n" for name, text in rows),
            "</table>\n<p>Reference: <code>",
            html.escape(record.approval_id),
            "</code></p>\n</body></html>\n",
        )
    )


def _asked(record: ApprovalRecord) -> Sequence[tuple[str, str]]:
    if record.kind is ApprovalKind.ACCOUNT:
        return (("Asked for", "an account"),)
    names = [html.escape(one.value) for one in record.identifiers[:MAX_SHOWN]]
    return (("Names", "<br>".join(names)), ("Profile", html.escape(record.profile)))


def _times(record: ApprovalRecord) -> Sequence[tuple[str, str]]:
    if record.status is ApprovalStatus.WAITING:
        return (("Waits until", _time(record.answer_by)),)
    if record.status is ApprovalStatus.APPROVED and record.holds_until is not None:
        return (("Good until", _time(record.holds_until)),)
    return ()


def _time(moment: datetime) -> str:
    return html.escape(format_timestamp(moment))
