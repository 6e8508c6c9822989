"""The demonstration from its empty directory to its last step."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from broker.demo.instance import NODE_CA, Instance, Ports
from broker.demo.node import NODE, NODE_NAME, Node, NodeFacts, play_node
from broker.demo.node_story import check_node_facts, tell_node
from broker.demo.processes import DemoFailed, loopback_environment, run_program
from broker.demo.serving import serve_and_look
from broker.demo.story import Facts, check_facts, tell

__all__ = ["run_demo"]

NAME: Final = "www.demo.internal"
"""The name that is certified: .internal is reserved for private use, so nobody is impersonated."""

CAP: Final = "10d"
"""The broker's validity cap; the CA behind it would give 30 days."""

CA_CAP: Final = "60d"
"""The longest that the CA behind it gives."""

CLIENT_TIME: Final = timedelta(seconds=90)
"""Longest run of certbot; on an idle core it takes three seconds."""

Say = Callable[[str], None]


async def run_demo(directory: Path | None, *, certbot: Path, say: Say = print) -> None:
    """Run the demonstration; everything is on loopback and ends with it.

    Raises:
        DemoFailed: A step did not come out as it has to, or SIGTERM came.
    """
    started = time.monotonic()
    client = _existing(certbot)
    with _empty_directory(directory) as place, _ended_by_sigterm():
        facts, node = await _play(place, client, say)
    say("")
    for number, (title, happened) in enumerate(tell(facts), start=1):
        say(f"{number:3}  {title}")
        say(f"     {happened}")
    say("")
    say(f"and a node with an agent, {NODE}:")
    for title, happened in tell_node(node):
        say(f"  -  {title}")
        say(f"     {happened}")
    faults = [*check_facts(facts), *check_node_facts(node)]
    if faults:
        raise DemoFailed("; ".join(faults))
    say("")
    say(f"done in {time.monotonic() - started:.0f} s; everything that was started has ended")


def _existing(certbot: Path) -> Path:
    if not certbot.exists():
        raise DemoFailed(f"there is no certbot at {certbot}; `make demo` puts one there")
    return certbot.absolute()


@contextlib.contextmanager
def _empty_directory(wanted: Path | None) -> Iterator[Path]:
    """Yield *wanted*, which stays, or a temporary directory, which goes."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="penstock-") as made:
            yield Path(made)
        return
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise DemoFailed(f"{wanted} is not empty")
    yield wanted.resolve()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into a failure that leaves nothing running, as Ctrl-C does by itself."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_told = False

    def stop() -> None:
        nonlocal is_told
        is_told = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    except asyncio.CancelledError:
        if is_told:
            raise DemoFailed("the demonstration was told to stop") from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _play(directory: Path, certbot: Path, say: Say) -> tuple[Facts, NodeFacts]:
    ports = _free_ports(9)
    client_port, plain_port = next(ports), next(ports)
    ca = Instance(
        name="the CA",
        directory=directory / "ca",
        ports=Ports(acme=next(ports), plain=next(ports), health=next(ports)),
        validation_port=plain_port,
        hosts={NAME: ["127.0.0.1"], NODE_NAME: ["127.0.0.1"]},
        upstreams={},
        names=[NAME, NODE_NAME],
        cap=CA_CAP,
    )
    broker = Instance(
        name="the broker",
        directory=directory / "broker",
        ports=Ports(acme=next(ports), plain=plain_port, health=next(ports), agents=next(ports)),
        validation_port=client_port,
        hosts={NAME: ["127.0.0.1"]},
        upstreams={"demo-ca": _upstream(ca)},
        names=[NAME, NODE_NAME],
        cap=CAP,
        nodes=[NODE],
    )
    async with AsyncExitStack() as stack:
        say("starting a CA: a Penstock whose built-in CA plays the upstream")
        await stack.enter_async_context(_running(ca))
        say(f"starting the broker: it asks that CA, and caps what it gets at {CAP}")
        await stack.enter_async_context(_running(broker))
        say(f"running certbot: a certificate for {NAME} from {broker.directory_url}")
        (directory / "certbot").mkdir(mode=0o700)
        live = await _run_certbot(certbot, directory / "certbot", broker, client_port)
        facts = await _gather(live, directory / "certbot", broker, ca, client_port)
        say(f"a node joins: {NODE} enrols, gets a certificate for {NODE_NAME}, has it renewed")
        node = Node(
            directory=directory / "node",
            broker=broker,
            root=ca.root_file,
            server_port=next(ports),
        )
        return facts, await play_node(node)


def _upstream(ca: Instance) -> dict[str, Any]:
    return {
        "kind": "acme",
        "directory": ca.directory_url,
        "ca_bundle": str(ca.root_file),
        "anchors": str(ca.root_file),
        "facts": {"honours_not_after": True, "max_lifetime": CA_CAP, "is_ct_logged": False},
        "poll_interval": "200ms",
        "solvers": [{"challenge": "http-01"}],
    }


@asynccontextmanager
async def _running(instance: Instance) -> AsyncIterator[Instance]:
    """Set *instance* up as an operator would, run it, and stop it in the end."""
    instance.write()
    await instance.command("ca", "init", "--upstream", "local")
    shown = await instance.json("ca", "show", "--upstream", "local")
    instance.root_file.write_text(shown["root_pem"], "ascii")
    if instance.ports.agents is not None:
        await instance.command(
            "ca", "init", "--upstream", NODE_CA, "--permit-name", "node.penstock.internal"
        )
    for upstream in instance.upstreams:
        await instance.command("upstream", "register", upstream, "--reason", "demonstration")
    try:
        await instance.start()
        yield instance
    finally:
        await instance.stop()


async def _run_certbot(certbot: Path, directory: Path, broker: Instance, client_port: int) -> Path:
    """Run certbot and return the directory that it keeps the certificate in."""
    command = [str(certbot), "certonly", "--standalone", "--non-interactive", "--agree-tos"]
    command += ["--register-unsafely-without-email", "--server", broker.directory_url]
    command += ["--http-01-address", "127.0.0.1", "--http-01-port", str(client_port)]
    command += ["--domain", NAME, "--cert-name", "demo"]
    for kind in ("config", "work", "logs"):
        command += [f"--{kind}-dir", str(directory / kind)]
    trust = {"REQUESTS_CA_BUNDLE": str(broker.root_file)}
    await run_program(
        "certbot", command, limit=CLIENT_TIME, environment=loopback_environment(**trust)
    )
    return directory / "config" / "live" / "demo"


async def _gather(
    live: Path, certbot: Path, broker: Instance, ca: Instance, client_port: int
) -> Facts:
    seen = await serve_and_look(
        NAME, chain=live / "fullchain.pem", key=live / "privkey.pem", root=ca.root_file
    )
    order = await _newest_order(broker)
    certificate = await broker.json("cert", "show", order["certificate"])
    requests, refused = await _counted(broker)
    return Facts(
        order=order,
        certificate=certificate,
        upstream_order=await _newest_order(ca),
        requests=requests,
        refused=refused,
        validation_port=client_port,
        csr_sha256=_csr_sha256(certbot),
        key_matches=_has_key(live),
        seen=seen,
    )


async def _newest_order(instance: Instance) -> Any:
    orders = await instance.json("order", "list")
    return await instance.json("order", "show", orders[0]["order"])


async def _counted(instance: Instance) -> tuple[int, int]:
    """Return how many signed requests were answered, and how many were refused."""
    url = f"http://127.0.0.1:{instance.ports.health}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    served = re.findall(
        r'^penstock_acme_requests_total\{code="\w+",operation="([\w-]+)"\} ([0-9.]+)$', text, re.M
    )
    unsigned = {"directory", "default-directory", "new-nonce", "none"}
    signed = sum(float(number) for operation, number in served if operation not in unsigned)
    refused = re.findall(r"^penstock_refusals_total\{.*\} ([0-9.]+)$", text, re.M)
    return int(signed), int(sum(map(float, refused)))


def _csr_sha256(certbot: Path) -> str:
    """Return the digest of the CSR that certbot made, from its own record of what it sent."""
    log = (certbot / "logs" / "letsencrypt.log").read_text("utf-8", errors="replace")
    sent = re.findall(r'"csr": "([A-Za-z0-9_-]+)"', log)
    if not sent:
        raise DemoFailed("certbot's log does not show the CSR that it sent")
    return hashlib.sha256(_decoded(sent[-1])).hexdigest()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _has_key(live: Path) -> bool:
    leaf = x509.load_pem_x509_certificate((live / "cert.pem").read_bytes())
    key = load_pem_private_key((live / "privkey.pem").read_bytes(), None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return leaf.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _free_ports(count: int) -> Iterator[int]:
    """Yield ports of loopback that nobody listens at; bound all at once, so that they differ."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        found = [int(probe.getsockname()[1]) for probe in probes]
    return iter(found)
