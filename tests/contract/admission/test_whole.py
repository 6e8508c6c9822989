"""All of `penstock admission`, between an API server and a broker that stand over real HTTPS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.app.admission import MUTATING, VALIDATING, serve_admission
from broker.config.admission import load_admission
from broker.config.policy_trial import PolicyTrials
from tests.contract.admission.servers import ApiServer, BrokerApi, Standing, standing
from tests.fakes.fake_cluster import FakeCluster
from tests.fakes.loop_time import LoopTime
from tests.fakes.pods import pod, review
from tests.fakes.policy_folder import cases, policy
from tests.peers import authority, process
from tests.unit.config.conftest import write as write_broker
from tests.unit.config.test_admission import write

TRUST = "/api/v1/namespaces/penstock/configmaps/penstock-trust"
COPY = "/api/v1/namespaces/shop/configmaps/penstock-trust"

SECONDS = 30.0
"""Longest wait for what takes milliseconds, in seconds."""


class Site:
    """A cluster with Penstock in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = FakeCluster()
        self.api = ApiServer(self.cluster)
        self.verdict: dict[str, Any] = {"allowed": True, "names": ["web.shop.svc"]}
        self.broker = BrokerApi(lambda _asked: (200, self.verdict))
        self.root = authority.make_root("penstock")
        self.webhook = f"https://127.0.0.1:{process.free_port()}"
        self.metrics = f"http://127.0.0.1:{process.free_port()}"
        self.leave_after = timedelta()
        self.fill()

    def fill(self) -> None:
        """Put what a chart puts there, and a namespace that opted in."""
        put = self.cluster.put
        put(TRUST, data={"ca.crt": self.root.certificate_pem.decode()})
        put("/api/v1/namespaces/shop", metadata={"labels": {"penstock.dev/inject": "enabled"}})
        put("/api/v1/namespaces/shop/services/web", spec={"selector": {"app": "web"}})
        hook = {"name": "x", "clientConfig": {"service": {"namespace": "penstock", "name": "a"}}}
        for path in (MUTATING, VALIDATING):
            put(f"{path}/penstock-admission", webhooks=[hook])

    def certify(self) -> None:
        """Do what the agent beside it does."""
        server = authority.make_server(self.root, ["127.0.0.1"])
        authority.write_server_files(self.folder / "tls", server, self.root)

    def config(self, api: Standing, broker: Standing) -> Path:
        """Write the file, and the broker's."""
        (self.folder / "penstock.yaml").write_text(write_broker({}))
        for name, token in (("api", "api-token"), ("operator", "operator-token")):
            (self.folder / f"{name}.token").write_text(token)
        return write(
            self.folder / "admission.yaml",
            listen={
                "webhook": self.webhook.removeprefix("https://"),
                "metrics": self.metrics.removeprefix("http://"),
                "certificate": f"{self.folder}/tls/tls.pem",
                "key": f"{self.folder}/tls/tls.key",
            },
            broker={
                "url": broker.url,
                "anchors": str(broker.ca_bundle),
                "token": f"file:{self.folder}/operator.token",
                "timeout": "2s",
            },
            kubernetes={
                "server": api.url,
                "token": f"file:{self.folder}/api.token",
                "ca_bundle": str(api.ca_bundle),
            },
            policies={"config": f"{self.folder}/penstock.yaml"},
        )

    def bundle(self, path: str) -> str:
        """Return the CA bundle of a webhook configuration."""
        (hook,) = self.cluster.objects[f"{path}/penstock-admission"]["webhooks"]
        return base64.b64decode(hook["clientConfig"].get("caBundle", "")).decode()

    async def ask(self, path: str, document: Any, **more: Any) -> dict[str, Any]:
        """Ask as the API server does: by its own roots."""
        context = ssl.create_default_context(cadata=self.root.certificate_pem.decode())
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.webhook}{path}?timeout=10s", json=review(document, **more), ssl=context
            ) as answer,
        ):
            assert answer.status == 200
            response: dict[str, Any] = (await answer.json())["response"]
            return response

    async def look(self, path: str) -> tuple[int, str]:
        """Look at the other port."""
        async with aiohttp.ClientSession() as session, session.get(self.metrics + path) as answer:
            return answer.status, await answer.text()

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(SECONDS):
            while not is_so():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Have it run, and end it as a kubelet does."""
        async with (
            standing(self.api.app, self.folder / "api") as api,
            standing(self.broker.app, self.folder / "broker") as broker,
        ):
            config = load_admission(self.config(api, broker))
            task = asyncio.create_task(serve_admission(config, self.leave_after))
            try:
                await self.listens(task)
                yield task
            finally:
                if not task.done():
                    os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(task, SECONDS)

    async def listens(self, task: asyncio.Task[None]) -> None:
        """Wait until somebody answers at the other port."""
        async with asyncio.timeout(SECONDS):
            while not task.done():
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    await self.look("/livez")
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A cluster with Penstock in it, and its certificate in place."""
    made = Site(tmp_path)
    made.certify()
    return made


async def test_a_pod_is_injected_and_its_namespace_gets_the_roots(site: Site) -> None:
    """With its Services told to the broker, and its own webhooks believed."""
    async with site.running():
        await site.until(lambda: COPY in site.cluster.objects)
        roots = site.root.certificate_pem.decode()
        assert site.cluster.objects[COPY]["data"] == {"ca.crt": roots}
        await site.until(lambda: site.bundle(MUTATING) == site.bundle(VALIDATING) == roots)
        assert (await site.look("/readyz"))[0] == 200
        response = await site.ask("/mutate", pod())
        assert response["allowed"] is True
        assert "patch" in response
        assert site.broker.asked[-1]["services"] == ["web"]
        assert site.broker.tokens == ["Bearer operator-token"]
        site.verdict = {"allowed": False, "reasons": [{"detail": "not for shop"}]}
        response = await site.ask("/mutate", pod())
        assert "not for shop" in response["status"]["message"]
        _, text = await site.look("/metrics")
        assert 'requests_total{outcome="injected",webhook="mutate"} 1.0' in text
        assert 'requests_total{outcome="refused",webhook="mutate"} 1.0' in text
        assert 'penstock_admission_following{what="services"} 1.0' in text


async def test_what_somebody_changes_is_put_right(site: Site) -> None:
    """A copy, a bundle, and new roots; a namespace that opts in later is no different."""
    async with site.running():
        await site.until(lambda: COPY in site.cluster.objects)
        labels = site.cluster.objects[COPY]["metadata"]["labels"]
        site.cluster.put(COPY, metadata={"labels": labels}, data={"ca.crt": "mine"})
        await site.until(lambda: "BEGIN" in site.cluster.objects[COPY]["data"]["ca.crt"])
        both = (
            site.root.certificate_pem.decode()
            + authority.make_root("next").certificate_pem.decode()
        )
        site.cluster.put(TRUST, data={"ca.crt": both})
        await site.until(lambda: site.bundle(MUTATING) == both)
        await site.until(lambda: site.cluster.objects[COPY]["data"]["ca.crt"] == both)
        labels = {"labels": {"penstock.dev/inject": "enabled"}}
        site.cluster.put("/api/v1/namespaces/late", metadata=labels)
        late = COPY.replace("shop", "late")
        await site.until(lambda: late in site.cluster.objects)


async def test_without_its_certificate_it_waits_and_is_not_ready(tmp_path: Path) -> None:
    """Its own agent brings one; roots that are not its own cut nobody off."""
    site = Site(tmp_path)
    async with site.running():
        status, text = await site.look("/readyz")
        assert status == 503
        assert "there is no certificate yet" in text
        assert site.bundle(MUTATING) == ""
        with pytest.raises(aiohttp.ClientError):
            await site.ask("/mutate", pod())
        site.certify()
        os.kill(os.getpid(), signal.SIGHUP)
        await site.until(lambda: site.bundle(MUTATING))
        assert (await site.look("/readyz"))[0] == 200
        assert (await site.ask("/mutate", pod()))["allowed"] is True


async def test_a_broker_that_is_away_lets_nobody_in(site: Site) -> None:
    """With a sentence that says so, before the API server gives up."""
    async with site.running():
        site.broker.answer = lambda _asked: (503, {"detail": "starting"})
        response = await site.ask("/mutate", pod())
        assert response["allowed"] is False
        assert "the broker cannot say now: starting" in response["status"]["message"]
        assert response["status"]["code"] == 503
        quiet = await site.ask("/mutate", pod({"inject": "false"}))
        assert quiet["allowed"] is True


async def test_policies_are_tried_before_they_are_stored(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that there are, in a child of its own; a busy machine takes its time to start it."""
    patient = functools.partial(PolicyTrials, limit_seconds=50.0)
    monkeypatch.setattr("broker.app.admission.PolicyTrials", patient)
    document: dict[str, Any] = {
        "metadata": {"name": "web", "labels": {"penstock.dev/policies": "default"}},
        "data": {"default.yaml": policy().decode(), "cases.yaml": cases().decode()},
    }
    more = {"kind": "ConfigMap", "namespace": "penstock", "name": "web"}
    async with site.running():
        response = await site.ask("/validate", document, **more)
        assert response["allowed"] is True
        assert response["auditAnnotations"] == {"cases": "1"}
        document["data"]["default.yaml"] = policy("30d").decode()
        response = await site.ask("/validate", document, **more)
        assert response["allowed"] is False
        assert "web/cases.yaml:" in response["status"]["message"]


async def test_a_replica_that_goes_serves_on_until_nobody_comes(site: Site) -> None:
    """It says that it goes, and answers who has not heard of it."""
    site.leave_after, time = timedelta(minutes=2), LoopTime()
    async with site.running() as task:
        assert (await site.look("/readyz"))[0] == 200
        os.kill(os.getpid(), signal.SIGTERM)
        status, text = 200, ""
        while status == 200:
            status, text = await site.look("/readyz")
        assert (status, "it is told to stop" in text) == (503, True)
        assert (await site.look("/livez"))[0] == 200
        assert (await site.ask("/mutate", pod()))["allowed"] is True
        time.advance(site.leave_after)
        await asyncio.wait_for(asyncio.shield(task), SECONDS)


async def test_what_nobody_expected_is_an_incident_and_lets_nobody_in(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server gets no more than an id, and refuses the pod."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr("broker.admission.injecting.parse_pod", fail)
    async with site.running():
        context = ssl.create_default_context(cadata=site.root.certificate_pem.decode())
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{site.webhook}/mutate", json=review(pod()), ssl=context) as answer,
        ):
            assert answer.status == 500
            text = await answer.text()
    assert "incident" in text
    assert "secret" not in text
