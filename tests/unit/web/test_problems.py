"""The one door out: what is told, what is kept back, what is counted."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.issuance.errors import Broken, Unreachable
from broker.protocol.problems import Problem, ProblemType
from broker.web.problems import problem_response, retry_after_header
from tests.fakes.clock import START
from tests.fakes.raw_client import RawClient
from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"
SECRET = "hunter2 at /etc/penstock/key.pass"


@pytest.fixture
async def client(site: Site) -> RawClient:
    """A client with an account."""
    await site.client.register()
    return site.client


@pytest.mark.parametrize(
    "error",
    [RuntimeError(SECRET), KeyError(SECRET), Broken(SECRET), OSError(SECRET)],
    ids=["runtime", "key", "broken", "os"],
)
async def test_unknown_exception_leaks_no_text(
    site: Site, client: RawClient, error: Exception
) -> None:
    """The client gets an incident id, and the log has the text under that id."""
    site.workflows.orders.error = error
    with capture_logs() as lines:
        answer = await client.post(f"{BASE}/order/order1")
    assert (answer.status, answer.problem) == (500, "serverInternal")
    assert SECRET.encode() not in answer.body
    assert "hunter2" not in str(answer.headers)
    incident = answer.json()["instance"].removeprefix("urn:uuid:")
    (line,) = [each for each in lines if each.get("incident") == incident]
    assert SECRET in repr(line)
    assert incident in answer.json()["detail"]


async def test_unreachable_service_is_a_reason_to_come_back(site: Site, client: RawClient) -> None:
    """503 with the time that the service named, and without its words."""
    site.workflows.orders.error = Unreachable(SECRET, retry_at=START + timedelta(seconds=41))
    answer = await client.post(f"{BASE}/order/order1")
    assert (answer.status, answer.problem) == (503, "serverInternal")
    assert answer.headers["Retry-After"] == "41"
    assert SECRET.encode() not in answer.body
    site.workflows.orders.error = Unreachable(SECRET)
    assert (await client.post(f"{BASE}/order/order1")).headers["Retry-After"] == "30"


async def test_refusal_is_counted_and_recorded(site: Site, client: RawClient) -> None:
    """A refused request leaves an event row with its kind, its sentence and who asked."""
    site.workflows.orders.error = Problem(ProblemType.REJECTED_IDENTIFIER, "x.example is not ours")
    await client.post(f"{BASE}/new-order", {"identifiers": [{"type": "dns", "value": "x.example"}]})
    event = await site.events.get()
    assert event.account_id == "acct1"
    assert event.community == "default"
    assert event.data["type"] == "rejectedIdentifier"
    assert event.data["detail"] == "x.example is not ours"
    assert site.observed.requests[-1] == ("new-order", 400, "rejectedIdentifier")


async def test_every_request_has_one_log_line_of_fields(site: Site, client: RawClient) -> None:
    """The sentence is constant, what differs stands in fields."""
    with capture_logs() as lines:
        await client.post(f"{BASE}/order/order1")
    (line,) = [each for each in lines if each.get("operation") == "order"]
    assert line["event"] == "request"
    assert (line["method"], line["status"], line["account"]) == ("POST", 200, "acct1")


async def test_problem_brings_its_headers(site: Site, client: RawClient) -> None:
    """Retry-After, links and Location of a problem are sent along with the ones we always send."""
    site.workflows.orders.error = Problem(
        ProblemType.RATE_LIMITED,
        "too many",
        retry_after=timedelta(seconds=1.2),
        links=(("help", "https://pki.corp.example/limits"),),
    )
    answer = await client.post(f"{BASE}/order/order1")
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers.getall("Link") == [
        '<https://pki.corp.example/limits>;rel="help"',
        f'<{BASE}/directory>;rel="index"',
    ]


@pytest.mark.parametrize(
    ("wait", "text"),
    [(0, "1"), (0.1, "1"), (1, "1"), (59.5, "60")],
    ids=["zero", "tenth", "one", "round-up"],
)
def test_retry_after_is_a_whole_number_of_seconds(wait: float, text: str) -> None:
    """Clients read integers, and none of them is told to come back at once."""
    assert retry_after_header(timedelta(seconds=wait)) == text


GOLDEN = Path(__file__).parents[2] / "golden" / "problems.json"

EXAMPLES = [
    *(Problem(kind, kind.sentence) for kind in ProblemType),
    Problem(
        ProblemType.REJECTED_IDENTIFIER,
        "2 reasons against this order",
        subproblems=[Problem(ProblemType.CAA, "CAA of a.example names another CA")],
    ),
    Problem(ProblemType.UNAUTHORIZED, "this account is deactivated", status=401),
    Problem(ProblemType.BAD_SIGNATURE_ALGORITHM, "alg 'none'", algorithms=("ES256",)),
]


def test_problem_documents_are_as_reviewed(update_golden: bool) -> None:
    """Every type, as a client sees it; ``--update-golden`` writes the file anew."""
    answers = [problem_response(problem) for problem in EXAMPLES]
    assert {answer.content_type for answer in answers} == {"application/problem+json"}
    shown = [
        {"status": answer.status, "document": json.loads(answer.body or b"")}  # type: ignore[arg-type]
        for answer in answers
    ]
    text = json.dumps(shown, indent=1, ensure_ascii=False) + "\n"
    if update_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    else:
        assert text == GOLDEN.read_text(encoding="utf-8")
