"""One simulated agent: enrols, holds its stream, answers, gives receipts, fails where told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agents import wire
from agents.pauses import Pauses
from agents.sending import URGENT_KINDS, is_on_the_way, patience_of
from tests.simulator.behaviour import Behaviour, Seen
from tests.simulator.http import Answer, Broken, Connection
from tests.simulator.identity import make_csr, spki_sha256
from tests.simulator.line import AGENT_VERSION, Line, Part, fingerprint_of

__all__ = ["Agent"]

LASTING_SECONDS: Final = 5.0
"""A connection that lasted so long shows that the broker is well."""


class Agent:
    """One node with its agent; everything it sees it notes in *seen*."""

    def __init__(
        self, node: str, line: Line, parts: Sequence[Part], behaviour: Behaviour, seen: Seen
    ) -> None:
        self.node = node
        self.line = line
        self.parts = {part.name: part for part in parts}
        self.behaviour = behaviour
        self._seen = seen
        self._instance = secrets.token_urlsafe(8)
        self._taken = 0
        """Highest sequence number that was taken in."""
        self._told = 0
        """The same as the broker was told it."""
        self._waiting: dict[str, wire.Message] = {}
        self._posting: asyncio.Task[None] | None = None
        self._company = asyncio.Event()
        """Set while messages wait, not only an acknowledgement."""
        self._urgent = asyncio.Event()
        """Set while one waits that shall wait for no other."""
        self._awaited = asyncio.Event()
        """Set while one waits that is no stage with others to follow."""
        self._patient_until = 0.0
        """By the monotonic clock: until then what went well is not told."""
        self._kept: Connection | None = None
        """Nobody speaks on it now."""
        self._used: set[Connection] = set()
        self._stream: Connection | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._dropping: asyncio.TimerHandle | None = None
        self._works: set[asyncio.Task[None]] = set()
        self._offered: dict[str, str] = {}
        """CSRs by delivery, which may be asked for twice."""
        self.heard_at = 0.0
        """When something last came over the stream, by the monotonic clock."""

    # ------------------------------------------------------------------------- the connection

    async def run(self) -> None:
        """Hold the connection, again and again, until cancelled."""
        pauses = Pauses()
        try:
            while True:
                begun = time.monotonic()
                wait = await self._session()
                if time.monotonic() - begun > LASTING_SECONDS:
                    pauses.reset()
                await asyncio.sleep(pauses.next(wait))
        finally:
            self.drop()
            for work in self._works:
                work.cancel()

    async def _session(self) -> float | None:
        """Be connected once; return for how long the broker asked to stay away, if it did."""
        try:
            if self.behaviour.is_polling:
                return await self._poll()
            return await self._hold_stream()
        except Broken as error:
            self._seen.counts["broken"] += 1
            self._seen.counts[f"broken: {str(error)[:60]}"] += 1
            return None
        finally:
            self._seen.connected.discard(self.node)
            self.drop()

    async def _hold_stream(self) -> float | None:
        target = f"{wire.PATHS['stream']}?after={self._taken}"
        self._stream = await self.line.open()
        headers = {**self.line.headers("GET", target), "Accept": "text/event-stream"}
        status, got = await self._stream.begin("GET", target, b"", headers)
        if status != 200:
            return self._refused(status, got)
        self._came()
        async for line in self._stream.events(got):
            self.heard_at = time.monotonic()
            if line.startswith("data:"):
                self._take(line[5:])
            elif line.startswith(":"):
                self._seen.counts["beats"] += 1
            elif line.startswith("event: goaway"):
                self._seen.counts["goaway"] += 1
            elif line.startswith("retry:"):
                return int(line[6:]) / 1000
        return None

    async def _poll(self) -> float | None:
        self._came()
        while True:
            target = f"{wire.PATHS['messages']}?after={self._taken}&wait=25"
            answer = await self._request("GET", target)
            if answer.status != 200:
                return self._refused(answer.status, answer.headers)
            self.heard_at = time.monotonic()
            for message in wire.parse_reply(answer.body).messages:
                self._take(json.dumps(message.document()))
            if self._told < self._taken or self._waiting:
                self._wake()
                if self._posting is not None:
                    await asyncio.wait([self._posting])

    def _refused(self, status: int, headers: Mapping[str, str]) -> float | None:
        self._seen.counts[f"stream {status}"] += 1
        after = headers.get("retry-after")
        return None if after is None else float(after)

    def _came(self) -> None:
        self._seen.connected.add(self.node)
        self._seen.counts["connects"] += 1
        self._note("", "connected")
        self.heard_at = time.monotonic()
        self.state()
        if self.behaviour.disconnects_after is not None:
            loop = asyncio.get_running_loop()
            self._dropping = loop.call_later(self.behaviour.disconnects_after, self.drop)

    def drop(self) -> None:
        """End every connection, without a word."""
        for connection in (self._stream, self._kept, *self._used):
            if connection is not None:
                connection.close()
        for timer in (self._closing, self._dropping):
            if timer is not None:
                timer.cancel()
        self._stream = self._kept = self._closing = self._dropping = None

    def check_silence(self, longest_seconds: float) -> None:
        """Give a stream up that has been silent for too long."""
        if self._stream is not None and time.monotonic() - self.heard_at > longest_seconds:
            self._seen.counts["silences"] += 1
            self.drop()

    # ------------------------------------------------------------------------------- sending

    def state(self) -> None:
        """Tell the broker what the node serves and wants served."""
        if not self.behaviour.is_deaf:
            certificates = [part.statement() for part in self.parts.values()]
            body = {"instance": self._instance, "agent": AGENT_VERSION}
            self.send("stated", {**body, "certificates": certificates})

    def send(self, kind: str, body: Mapping[str, Any], re: str | None = None) -> None:
        """Queue a message; those that wait go out together."""
        message = wire.Message(secrets.token_urlsafe(16), kind, body, 0, re)
        self._waiting[message.id] = message
        self._company.set()
        if kind in URGENT_KINDS:
            self._urgent.set()
        is_well = kind == "receipt" and body.get("stage") == "seen"
        if not (is_on_the_way(kind, body) or (is_well and self._patience() > 0)):
            self._awaited.set()
        self._wake()

    def _wake(self) -> None:
        if self._posting is None or self._posting.done():
            self._posting = asyncio.get_running_loop().create_task(self._post_all())

    async def _post_all(self) -> None:
        pauses = Pauses()
        while self._waiting or self._told < self._taken:
            if not self._waiting:
                await _wait(self._company, max(self.behaviour.company_seconds, self._patience()))
            await _wait(self._urgent, self.behaviour.gather_seconds)
            if self._waiting:
                await _wait(self._awaited, max(self.behaviour.stages_seconds, self._patience()))
            try:
                await self._post()
                pauses.reset()
            except Broken as error:
                self._seen.counts[f"post broken: {str(error)[:60]}"] += 1
                await asyncio.sleep(pauses.next())

    def _patience(self) -> float:
        """Return for how many seconds more what went well is not told."""
        return max(self._patient_until - time.monotonic(), 0.0)

    async def _post(self) -> None:
        sent = tuple(self._waiting.values())[: wire.MAX_BATCH]
        self._company.clear()
        self._urgent.clear()
        self._awaited.clear()
        ack = self._taken
        body = wire.Batch(wire.VERSION, ack, sent).encode()
        answer = await self._request("POST", wire.PATHS["messages"], body)
        self._seen.counts["posts"] += 1
        if answer.status != 200:
            self._seen.counts[f"post {answer.status}"] += 1
            raise Broken(f"post answered {answer.status}")
        self._told = max(self._told, ack)
        reply = wire.parse_reply(answer.body)
        for accepted in reply.accepted:
            message = self._waiting.pop(accepted, None)
            if message is not None and message.kind in ("csr", "receipt"):
                stage = message.body.get("stage", "csr")
                self._note(str(message.body["delivery"]), f"told {stage}")
        for refused in reply.refused:
            self._seen.counts["refused messages"] += 1
            self._seen.fault(f"{self.node}: {refused.reason}")
            if refused.is_final:
                self._waiting.pop(refused.id, None)
        if any(not one.is_final for one in reply.refused):
            raise Broken("post to be repeated")

    async def _request(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Do a request over the connection that is kept, or a new one; raises Broken."""
        kept, self._kept = self._kept, None
        if self._closing is not None:
            self._closing.cancel()
        if kept is not None and kept.is_open:
            try:
                return await self._over(kept, method, target, body)
            except Broken:
                if kept.has_answered:
                    raise
                self._seen.counts["kept connections gone"] += 1
        self._seen.counts["request connections"] += 1
        return await self._over(await self.line.open(), method, target, body)

    async def _over(self, connection: Connection, method: str, target: str, body: bytes) -> Answer:
        self._used.add(connection)
        try:
            headers = self.line.headers(method, target, body)
            answer = await connection.request(method, target, body, headers)
        except BaseException:
            connection.close()
            raise
        finally:
            self._used.discard(connection)
        if self._kept is not None or not self.behaviour.keep_seconds:
            connection.close()
        elif connection.is_open:
            self._kept = connection
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(self.behaviour.keep_seconds, connection.close)
        return answer

    # ------------------------------------------------------------------------------- answering

    def _take(self, text: str) -> None:
        message = wire.parse_message(json.loads(text))
        self._seen.counts[f"got {message.kind}"] += 1
        if self.behaviour.is_deaf:
            return
        if message.seq <= self._taken:
            self._seen.counts["repeated"] += 1
            return
        self._taken = message.seq
        if self._patience() <= 0:
            self._patient_until = time.monotonic() + patience_of(message)
        answer = _ANSWERS.get(message.kind)
        subject = str(message.body.get("delivery") or message.body.get("bundle") or "")
        self._note(subject, f"got {message.kind}")
        if answer is None or self.behaviour.is_silent:
            self._wake()
        else:
            answer(self, message)

    def _note(self, subject: str, what: str) -> None:
        self._seen.times.append((self.node, subject, what, time.monotonic()))

    def _offer_csr(self, message: wire.Message) -> None:
        body = message.body
        part = self.parts.get(body["certificate"])
        if part is None:
            gone = {"delivery": body["delivery"], "reason": "no such certificate"}
            return self.send("unable", {**gone, "is_final": True}, message.id)
        if sorted(body["names"]) != sorted(part.names):
            self._seen.fault(f"{self.node}: asked for {body['names']}, stated {part.names}")
        delivery = body["delivery"]
        if delivery not in self._offered:
            self._offered[delivery] = wire.encode_bytes(make_csr(part.key, part.names))
        made = {
            "delivery": delivery,
            "certificate": part.name,
            "csr_der": self._offered[delivery],
        }
        return self.send("csr", made, message.id)

    def _install(self, message: wire.Message) -> None:
        work = asyncio.get_running_loop().create_task(self._installed(message))
        self._works.add(work)
        work.add_done_callback(self._works.discard)

    async def _installed(self, message: wire.Message) -> None:
        body, behaviour = message.body, self.behaviour
        part = self.parts.get(body["certificate"])
        fingerprint = fingerprint_of(body["chain_pem"])
        tell = self._teller(message, fingerprint)
        if part is None or behaviour.refuses:
            return tell("refused")
        if body["generation"] < part.generation:
            self._seen.counts["went back"] += 1
            return tell("refused")
        if body["spki_sha256"] != spki_sha256(part.key):
            self._seen.fault(f"{self.node}: a certificate for another key")
            return tell("refused")
        self._offered.pop(body["delivery"], None)
        former = (part.generation, part.fingerprint)
        tell("checked")
        part.generation, part.fingerprint = body["generation"], fingerprint
        tell("installed")
        await asyncio.sleep(behaviour.reload_seconds)
        self._seen.counts["reloads tried"] += 1
        if behaviour.reload_fails:
            part.generation, part.fingerprint = former
            self._seen.counts["reloads failed"] += 1
            return tell("restored")
        tell("reloaded")
        if behaviour.look_fails:
            part.generation, part.fingerprint = former
            return tell("restored")
        self._note(str(body["delivery"]), "served")
        return tell("seen")

    def _teller(self, message: wire.Message, fingerprint: str) -> Callable[[str], None]:
        body, last = message.body, self.behaviour.last_stage

        def tell(stage: str) -> None:
            is_past = last is not None and wire.STAGES.index(stage) > wire.STAGES.index(last)
            if is_past:
                return
            self._seen.counts[f"told {stage}"] += 1
            made = {name: body[name] for name in ("delivery", "certificate", "generation")}
            now = int(time.time())  # noqa: TID251  an agent's own clock
            self.send(
                "receipt",
                {**made, "stage": stage, "fingerprint": fingerprint, "at": now},
                message.id,
            )

        return tell

    def _keep_bundle(self, message: wire.Message) -> None:
        made = {name: message.body[name] for name in ("bundle", "version")}
        self.send("bundle-installed", made, message.id)

    def _answer_challenge(self, message: wire.Message) -> None:
        self.send("challenge-answered", {"challenge": message.body["challenge"]}, message.id)

    def _note_refusal(self, message: wire.Message) -> None:
        self._seen.fault(f"{self.node}: refused: {message.body['reason']}")
        self._wake()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


_ANSWERS: Final[Mapping[str, Callable[[Agent, wire.Message], None]]] = {
    "want-csr": Agent._offer_csr,
    "certificate": Agent._install,
    "bundle": Agent._keep_bundle,
    "answer-challenge": Agent._answer_challenge,
    "refused": Agent._note_refusal,
}
