"""Asks the broker what a workload may have: its operator API, as a service account of the cluster.

The token is read for each question, since the kubelet replaces it; so are the roots, when their
file has changed.  A broker that is away is asked again for as long as the API server waits.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from broker.admission.https import Https, read_token
from broker.admission.verdicts import Verdict, Workload, parse_verdict
from broker.issuance.errors import Broken, Unreachable

__all__ = ["PATH", "BrokerReviews"]

PATH: Final = "/v1/workload/review"
"""Where the operator API answers it."""

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Largest answer that is read, in bytes; one with a hundred reasons has 30 KiB."""

FIRST_PAUSE_SECONDS: Final = 0.1
"""Pause before the second try, in seconds; each further one is twice as long.  A broker that is
started anew is away for a second or two."""

AT_ONCE: Final = 32
"""Most questions at once: pods that start together wait for one another here and not there."""

_LATER: Final = frozenset({429, 500, 502, 503, 504})
"""Answers after which it is asked again."""


class BrokerReviews:
    """Implements ``verdicts.Reviewer`` by the operator API."""

    def __init__(
        self,
        url: str,
        *,
        cluster: str,
        token: Callable[[], bytes],
        anchors: Path,
        user_agent: str,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._cluster = cluster
        self._token = token
        self._https = Https(anchors, user_agent, least=ssl.TLSVersion.TLSv1_3)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close all connections."""
        await self._https.close()

    async def review(self, workload: Workload, seconds: float) -> Verdict:
        """Return what the broker says; see ``verdicts.Reviewer``."""
        body = json.dumps(
            {
                "cluster": self._cluster,
                "namespace": workload.namespace,
                "service_account": workload.service_account,
                "pod": workload.pod,
                "services": list(workload.services),
                "names": list(workload.names),
                "profile": workload.profile,
            }
        ).encode("ascii")
        last = Unreachable(f"the broker at {self._url} did not answer within {seconds:.1f} s")
        pause = FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with self._room:
                            return await self._ask(body)
                    except Unreachable as error:
                        last = error
                    await asyncio.sleep(pause)
                    pause *= 2
        except TimeoutError:
            raise last from None

    async def _ask(self, body: bytes) -> Verdict:
        bearer = read_token(self._token)
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        try:
            async with self._https.session().post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                read = await self._https.read(answer, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the broker at {self._url} cannot be reached: {reason}") from error
        said = _object(read)
        if answer.status == 200:
            return parse_verdict(said)
        detail = str(said.get("detail") or f"status {answer.status}")
        if answer.status in _LATER:
            raise Unreachable(f"the broker cannot say now: {detail}")
        hint = f" ({said['hint']})" if said.get("hint") else ""
        raise Broken(f"the broker does not let admission ask: {detail}{hint}")


def _object(octets: bytes) -> dict[str, Any]:
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
