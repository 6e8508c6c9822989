"""The desk about pods that are not there yet."""

import json
from dataclasses import replace

import pytest

from broker.operations import OperatorDesk
from broker.web.operator import OperationError, Operations
from tests.unit.issuance.test_workload_review import WEB, Scene
from tests.unit.operations.conftest import Office

ASKED = {"cluster": "prod", "namespace": "shop", "service_account": "web", "services": ["web"]}


def desk(office: Office) -> Operations:
    """Return a desk that knows one cluster."""
    scene = Scene(office.world)
    rooms = replace(office.desk._rooms, workloads=scene.reviews)  # type: ignore[attr-defined]
    return OperatorDesk(rooms)


async def test_review_is_answered_in_json(office: Office) -> None:
    """Everything that a program needs to write the sidecar's file."""
    found = await desk(office).workload_review(**ASKED)  # type: ignore[arg-type]
    assert json.loads(json.dumps(found)) == found
    assert found["allowed"] is True
    assert (found["names"], found["node"], found["profile"]) == ([WEB], "*.shop.prod", "server")
    assert (found["upstreams"], found["upstream"]) == (["ca", "local"], "ca")
    assert found["budget"] == [
        {
            "upstream": "ca",
            "quota": "policy default pods workload prod/shop/web",
            "limit": "2/7d",
            "used": 0,
            "would_exceed": False,
            "detail": None,
        }
    ]


async def test_refusal_has_a_reason_with_its_place(office: Office) -> None:
    """An empty profile is none; labels are taken for Services."""
    asked = {**ASKED, "names": ["mail.example.com"], "profile": ""}
    found = await desk(office).workload_review(**asked)  # type: ignore[arg-type]
    assert found["allowed"] is False
    (reason,) = found["reasons"]
    assert reason["check"] == "eab-names"
    assert reason["detail"] == "'mail.example.com' is outside the names of node 'x.shop.prod'"
    assert found["upstream"] is None
    labelled = {**ASKED, "services": None, "pod_labels": {"app": "web"}}
    found = await desk(office).workload_review(**labelled)  # type: ignore[arg-type]
    assert found["names"] == [WEB]


async def test_stranger_of_a_cluster_is_said_to_be_none(office: Office) -> None:
    """Where there are no nodes there is no cluster either."""
    for one in (office.desk, desk(office)):
        with pytest.raises(OperationError, match="there is no cluster 'nowhere'"):
            await one.workload_review(**{**ASKED, "cluster": "nowhere"})  # type: ignore[arg-type]
