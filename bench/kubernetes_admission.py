"""How long the API server takes to let a pod in: a program that runs on the node.

It reads what is asked as JSON from standard input, sends the same pod as often as is asked as a dry
run, over one connection and with the administrator's certificate, and prints the times in
milliseconds as JSON.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from typing import Any, Final

ANSWER_SECONDS: Final = 30.0


def times(asked: dict[str, Any]) -> list[float]:
    """Return how long each dry run took, in milliseconds.

    Raises:
        SystemExit: One was refused; with the answer.
    """
    context = ssl.create_default_context(cafile=asked["ca"])
    context.load_cert_chain(asked["certificate"], asked["key"])
    to = http.client.HTTPSConnection(
        asked["host"], asked["port"], timeout=ANSWER_SECONDS, context=context
    )
    where = f"/api/v1/namespaces/{asked['namespace']}/pods?dryRun=All"
    body = json.dumps(asked["pod"])
    taken = []
    for _ in range(asked["times"]):
        begun = time.perf_counter()
        to.request("POST", where, body, {"Content-Type": "application/json"})
        answer = to.getresponse()
        content = answer.read()
        taken.append(1000 * (time.perf_counter() - begun))
        if answer.status != http.client.CREATED:
            raise SystemExit(f"{answer.status}: {content.decode()}")
    to.close()
    return taken


if __name__ == "__main__":
    print(json.dumps(times(json.load(sys.stdin))))
