"""What commands answer is of the types that the description is written from."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from broker.web.openapi import describe
from broker.web.routes import route_of
from broker.web.shapes import schema_of
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import NodeWorld
from tests.unit.operations.conftest import ANNA
from tests.unit.operations.test_nodes import NodeOffice


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[NodeOffice]:
    """A desk with nodes."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as scene:
            yield NodeOffice(scene)


def check(command: str, answer: Any) -> None:
    """See that *answer* is of the type of *command*, and that its objects have nothing more."""
    components = describe({})["components"]
    closed = {
        name: {**one, "unevaluatedProperties": False} if "properties" in one else one
        for name, one in components["schemas"].items()
    }
    schema = {**schema_of(route_of(command).answer, {}), "components": {"schemas": closed}}
    jsonschema.Draft202012Validator(schema).validate(answer)


async def test_answers_about_requesters_are_of_their_types(office: NodeOffice) -> None:
    """As a real store has them."""
    world, desk = office.scene.world, office.desk
    order = await (await world.client()).issue("www.example.com")
    check("order_list", await desk.order_list())
    check("order_show", await desk.order_show(order_id=order.order_id))
    check("cert_list", await desk.cert_list())
    check("cert_show", await desk.cert_show(certificate=order.certificate_id or ""))
    check("account_list", await desk.account_list())
    check("account_show", await desk.account_show(account_id=order.account_id))
    check("eab_mint", await desk.eab_mint(actor=ANNA, label="x"))
    check("eab_list", await desk.eab_list())


async def test_answers_about_nodes_are_of_their_types(office: NodeOffice) -> None:
    """A token's text is in one of them alone."""
    desk = office.desk
    await office.scene.join("web-01")
    check("node_list", await desk.node_list())
    check("node_show", await desk.node_show(node="web-01"))
    check("node_drain", await desk.node_drain(actor=ANNA, node="web-01"))
    made = await desk.node_token(actor=ANNA, node="web-02")
    check("node_token", made)
    check("node_tokens", await desk.node_tokens())
    with pytest.raises(jsonschema.ValidationError):
        check("node_tokens", [made])
