"""Trust anchors for pods: which they are, and that they are kept where pods find them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, generate_latest

from broker.app.trust import AGAIN, RETRY, TrustMetrics, TrustPublishing, make_trust_publishing
from broker.config import Config
from broker.issuance.errors import Unreachable
from broker.publishing.config_maps import KeptConfigMap
from tests.fakes.clock import FakeClock
from tests.fakes.fake_policies import FakePolicies
from tests.unit.config.conftest import parsed
from tests.unit.config.test_publishing import with_trust
from tests.unit.protocol.builders import Authority

OURS, PUBLIC, UNUSED = (Authority.root(name) for name in ("ours", "public", "unused"))


@dataclass
class FakeKept:
    """A ConfigMap in memory."""

    text: str | None = None
    is_away: bool = False
    writes: list[str] = field(default_factory=list)

    async def keep(self, text: str) -> str | None:
        """See KeptConfigMap."""
        if self.is_away:
            raise Unreachable("ConfigMap penstock/penstock-trust: no answer")
        before, self.text = self.text, text
        if before != text:
            self.writes.append(text)
        return before


class FakeAnchors:
    """The anchors of each upstream."""

    def __init__(self) -> None:
        self.anchors: dict[str, list[bytes]] = {
            "ca": [PUBLIC.der], "local": [OURS.der], "unused": [UNUSED.der],
        }  # fmt: skip

    def of(self, upstream: str, community: str) -> Sequence[bytes] | None:
        """Return the anchors of *upstream*, whoever asks."""
        assert community == "default"
        return self.anchors.get(upstream)


class Scene:
    """A broker that publishes."""

    def __init__(self, config: Config) -> None:
        self.clock, self.kept, self.registry = FakeClock(), FakeKept(), CollectorRegistry()
        self.upstreams = FakeAnchors()
        outside: Any = SimpleNamespace(
            config=config,
            clock=self.clock,
            policies=FakePolicies(),
            upstreams=self.upstreams,
            telemetry=SimpleNamespace(registry=self.registry),
        )
        assert config.publishing is not None
        kept: Any = self.kept
        self.publishing = TrustPublishing(
            config.publishing.trust, outside, kept, TrustMetrics(self.registry)
        )
        self.outside = outside

    @property
    def is_told_as_kept(self) -> bool:
        """Whether the metric says so."""
        return "penstock_trust_published 1.0" in generate_latest(self.registry).decode()


def config(**trust: Any) -> Config:
    """Return a configuration that publishes."""
    acme = {"kind": "acme", "directory": "https://ca.example/d"}
    return parsed(
        {**with_trust(**trust), "upstreams.ca": dict(acme), "upstreams.unused": dict(acme)}
    )


@pytest.fixture
def scene() -> Scene:
    """One whose policy takes two upstreams of three."""
    return Scene(config())


def roots(text: str | None) -> set[bytes]:
    """Return the roots in a PEM text."""
    found = x509.load_pem_x509_certificates((text or "").encode())
    return {one.public_bytes(Encoding.DER) for one in found}


async def test_anchors_are_those_of_every_upstream_that_policy_takes(scene: Scene) -> None:
    """Public ones too, for a pod checks what it is given; and each once, in one order."""
    await scene.publishing.take_turn()
    assert roots(scene.kept.text) == {OURS.der, PUBLIC.der}
    assert scene.is_told_as_kept
    first = scene.kept.text
    scene.upstreams.anchors["ca"].append(OURS.der)
    await scene.publishing.take_turn()
    assert scene.kept.text == first


async def test_new_anchor_is_published_at_once(scene: Scene) -> None:
    """A turn comes every few seconds; nothing is asked where nothing has changed."""
    await scene.publishing.take_turn()
    scene.upstreams.anchors["ca"].append(UNUSED.der)
    await scene.publishing.take_turn()
    assert roots(scene.kept.text) == {OURS.der, PUBLIC.der, UNUSED.der}
    assert len(scene.kept.writes) == 2


async def test_what_somebody_else_changed_is_put_right(scene: Scene) -> None:
    """Within minutes."""
    await scene.publishing.take_turn()
    good, scene.kept.text = scene.kept.text, "theirs"
    scene.clock.advance(AGAIN - timedelta(seconds=1))
    await scene.publishing.take_turn()
    assert scene.kept.text == "theirs"
    scene.clock.advance(timedelta(seconds=1))
    await scene.publishing.take_turn()
    assert scene.kept.text == good


async def test_api_server_that_is_away_is_asked_again(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops nothing, is told once, and is seen in the metrics."""
    scene.kept.is_away = True
    for _ in range(3):
        await scene.publishing.take_turn()
        scene.clock.advance(RETRY)
    assert not scene.is_told_as_kept
    assert "".join(capsys.readouterr()).count("trust anchors are not published") == 1
    scene.kept.is_away = False
    await scene.publishing.take_turn()
    assert scene.is_told_as_kept


async def test_no_anchors_are_not_published(scene: Scene) -> None:
    """An empty file would have pods trust nobody; one that was there stays."""
    await scene.publishing.take_turn()
    scene.upstreams.anchors.clear()
    await scene.publishing.take_turn()
    assert len(scene.kept.writes) == 1
    assert not scene.is_told_as_kept


async def test_further_roots_come_from_files(tmp_path: Path) -> None:
    """As that of a listener's certificate that somebody else issues."""
    path = tmp_path / "ca.crt"
    scene = Scene(config(also=[str(path)]))
    await scene.publishing.take_turn()
    assert scene.kept.text is None
    path.write_bytes(UNUSED.pem)
    scene.clock.advance(RETRY)
    await scene.publishing.take_turn()
    assert roots(scene.kept.text) == {OURS.der, PUBLIC.der, UNUSED.der}
    path.write_text("no certificate")
    await scene.publishing.take_turn()
    assert not scene.is_told_as_kept


def test_nothing_is_kept_unless_it_is_configured(scene: Scene) -> None:
    """And then by the adapter, which asks nobody before its first turn."""
    made = make_trust_publishing(
        SimpleNamespace(  # type: ignore[arg-type]  # as much of it as is looked at
            config=config(), telemetry=SimpleNamespace(registry=CollectorRegistry())
        )
    )
    assert made is not None
    assert isinstance(made._kept, KeptConfigMap)
    scene.outside.config = parsed()
    assert make_trust_publishing(scene.outside) is None
