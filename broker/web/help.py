"""Pages that ``Link rel="help"`` leads to: one for each type of problem, made from its table."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from broker.protocol.problems import Problem, ProblemType

__all__ = ["add_help"]

_ADVICE: Final = {
    ProblemType.RATE_LIMITED: (
        "This server limits how often one client address or one account may ask.  Wait for as\n"
        "many seconds as the Retry-After header of the refusal says, then go on.  A client that\n"
        "polls should heed Retry-After in every answer.  A name whose validations failed too\n"
        "often can be ordered again later: see to its challenge first.  The operator of this\n"
        "server can tell you the limits, and change them.\n"
    ),
    ProblemType.USER_ACTION_REQUIRED: (
        "If the sentence speaks of the terms of service: read them at the link of the refusal,\n"
        "then register again with the same account key and agree, as your client lets you.\n\n"
        "If it speaks of an approval: a person has to say yes first.  The request is filed, and\n"
        "the page at its URL says where it stands.  Leave your client as it is: its next ordinary\n"
        "run after the approval succeeds.\n"
    ),
}
"""What to do, where the sentence of the table does not say enough."""


def add_help(app: web.Application, root: str) -> None:
    """Serve the pages below *root*."""
    pages = {kind.token: _page(kind) for kind in ProblemType}

    async def page(request: web.Request) -> web.StreamResponse:
        text = pages.get(request.match_info["token"])
        if text is None:
            raise Problem(ProblemType.MALFORMED, "no problem has this name", status=404)
        return web.Response(text=text)

    app.router.add_get(f"{root}/help/{{token:[A-Za-z]{{1,64}}}}", page, name="help")


def _page(kind: ProblemType) -> str:
    advice = _ADVICE.get(kind)
    parts = [f"{kind.urn}\n", f"{kind.sentence} ({kind.source}).\n", *([advice] if advice else [])]
    return "\n".join(parts)
