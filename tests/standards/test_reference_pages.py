"""Pages that are written from the code: what they say is what the code has."""

import asyncio
import re
from collections.abc import Callable

import pytest

from broker.admission.metrics import AdmissionMetrics
from broker.app.account_key_metrics import AccountKeyMetrics
from broker.app.approvals import ApprovalMetrics
from broker.app.audit_metrics import AuditMetrics
from broker.app.config_metrics import ConfigMetrics
from broker.app.delivery_metrics import DeliveryMetrics
from broker.app.key_watch import KeyFaultMetrics
from broker.app.node_metrics import NodeMetrics
from broker.app.operator_metrics import OperatorMetrics
from broker.app.policy_metrics import PolicyMetrics
from broker.app.trust import TrustMetrics
from broker.app.vault_metrics import VaultMetrics
from broker.audit.feeding import SinkState
from broker.issuance.approval_states import render_diagram as render_approvals
from broker.issuance.audit_ports import SinkPosition
from broker.issuance.delivery_stages import render_diagram
from broker.issuance.events import EventKind
from broker.issuance.key_rotation import AccountKeyView
from broker.issuance.node_ports import DeliveryStage, NodeStatus
from broker.protocol.problems import ProblemType
from broker.protocol.transitions import render_diagrams
from broker.telemetry import Snapshot, Telemetry
from tests.fakes.clock import START, FakeClock
from tests.standards.sources import REPOSITORY, read, table_rows

WRITTEN = "<!-- Written from the code; `make golden` writes it anew. -->"

ERRORS = f"""\
# Problem types

{WRITTEN}

Every refusal that a client gets is a problem document (RFC 9457 §3): `type`, a sentence in
`detail`, the HTTP status, and `subproblems` where several names are refused for reasons of their
own. Programs look at `type`; people read `detail`, which tells what was found and what was
expected. These are all the types there are; what a CA upstream answers with another one reaches
the client as `serverInternal`.

The first column stands behind `urn:ietf:params:acme:error:`. The status is the usual one; a
sentence in [standards](standards.md) says where another is sent. `connection`, `dns`, `tls` and
`incorrectResponse` stand inside challenges that failed.

| Type | Status | Meaning | Where it is defined |
|---|---|---|---|
"""

STATUSES = f"""\
# Statuses

{WRITTEN}

How accounts, orders, authorizations and challenges change (RFC 8555 §7.1.6). Nothing but
`broker/protocol/transitions.py` changes a status. One reading of ours is in the picture: an order
in `processing` waits for an answer of the CA, however long that takes, and does not expire.

"""

METRICS = f"""\
# Metrics

{WRITTEN}

Served at `/metrics` of the health listener, in the Prometheus text format. Labels take their
values from short, fixed lists, so no client can make series. Those of `penstock_admission` are
served by [`penstock admission`](operations/sidecars.md) at its own port.

| Metric | Kind | Labels | Meaning |
|---|---|---|---|
"""


def errors_page() -> str:
    """Return the page of problem types."""
    rows = (
        f"| `{each.token}` | {each.http_status} | {each.sentence} | {each.source} |"
        for each in ProblemType
    )
    return ERRORS + "\n".join(rows) + "\n"


def statuses_page() -> str:
    """Return the page with the diagrams."""
    ours = "\n\n## Delivery\n\n" + render_diagram().rstrip()
    ours += "\n\n## Approval\n\n" + render_approvals().rstrip()
    return STATUSES + render_diagrams().replace("### ", "## ").rstrip() + ours + "\n"


def metrics_page() -> str:
    """Return the page of metrics, from what a broker that just started would show."""

    async def empty() -> Snapshot:
        return Snapshot(counts={}, expiries=())

    telemetry = Telemetry(version="x", upstreams=("local",), clock=FakeClock(), snapshot=empty)
    key = AccountKeyView(
        upstream="ca",
        community="default",
        key_id="key",
        since=START,
        due_at=None,
        failure=None,
        not_retired=None,
    )
    AccountKeyMetrics(telemetry.registry).show([key])
    ApprovalMetrics(telemetry.registry)
    VaultMetrics(telemetry.registry, ["default"])
    sink = SinkPosition(name="collector", seq=0, checkpoint=0, at=START)
    AuditMetrics(telemetry.registry).show([SinkState(position=sink, fault=None, since=None)], None)
    KeyFaultMetrics(telemetry.registry)
    ConfigMetrics(telemetry.registry)
    PolicyMetrics(telemetry.registry)
    TrustMetrics(telemetry.registry)
    OperatorMetrics(telemetry.registry).answered(200)
    nodes = NodeMetrics(telemetry.registry)
    nodes.show({NodeStatus.ACTIVE: 1}, connections=1, waiting=0)
    nodes.sent("certificate")
    nodes.received("csr", "taken")
    nodes.enrolled("token", "enrolled")
    DeliveryMetrics(telemetry.registry).show({DeliveryStage.ASKED: 1}, {}, oldest=None, unrenewed=0)
    admission = AdmissionMetrics("x")
    admission.show(end=START, following={"services": True}, due=0)
    text = asyncio.run(telemetry.render()).decode() + admission.render().decode()
    rows = []
    for name, kind in re.findall(r"^# TYPE (penstock_\w+) (\w+)$", text, re.MULTILINE):
        if name.endswith("_created"):
            continue
        (meaning,) = re.findall(rf"^# HELP {name} (.+)$", text, re.MULTILINE)
        labels = re.search(rf"^{name}(?:_bucket)?\{{(.*)\}} ", text, re.MULTILINE)
        names = re.findall(r'(\w+)="', labels[1]) if labels else []
        shown = ", ".join(f"`{one}`" for one in names if one != "le") or "none"
        rows.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return METRICS + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/errors.md", errors_page),
        ("docs/statuses.md", statuses_page),
        ("docs/metrics.md", metrics_page),
    ],
)
def test_page_is_what_the_code_says(
    path: str, page: Callable[[], str], update_golden: bool
) -> None:
    """The page in the project is the one that would be written now."""
    if update_golden:
        (REPOSITORY / path).write_text(page(), encoding="utf-8")
    else:
        assert read(path) == page()


def test_every_problem_type_and_every_metric_has_its_row() -> None:
    """The pages are not empty, whatever the code that writes them does."""
    assert len(table_rows("docs/errors.md", "Type")) == len(ProblemType)
    assert len(table_rows("docs/metrics.md", "Metric")) >= 15
    assert read("docs/statuses.md").count("stateDiagram-v2") == 6


def test_every_kind_of_event_is_explained() -> None:
    """The operator's table of events has each kind once, and no other."""
    explained = [
        re.sub("`", "", row[0]) for row in table_rows("docs/operations/events.md", "Event")
    ]
    assert sorted(explained) == sorted(EventKind)
