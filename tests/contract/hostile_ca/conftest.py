"""A CA and a client that has an account with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.hostile_ca.steps import READY
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca import HostileCa, Script


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[HostileCa]:
    """A CA whose orders are ready at once."""
    async with HostileCa(tmp_path, Script(standing=READY)) as server:
        yield server


@pytest.fixture
async def client(ca: HostileCa) -> AsyncIterator[AcmeClient]:
    """A client with an account."""
    async with AcmeClient(ca.directory_url, ca.ca_bundle) as one:
        assert (await one.register()).status == 201
        yield one
