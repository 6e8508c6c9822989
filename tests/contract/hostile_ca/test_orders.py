"""What becomes of orders and challenges under each switch."""

import datetime

import pytest

from tests.contract.hostile_ca.steps import NAME, behave, leaf_of
from tests.fakes.acme_client import AcmeClient, make_csr
from tests.fakes.hostile_ca import FOREVER, AfterFinalize, Behaviour, ChallengeResult, HostileCa
from tests.peers import authority


class TestOrders:
    """What becomes of orders."""

    async def test_coalescing(self, ca: HostileCa, client: AcmeClient) -> None:
        """The same unfinished order answers every newOrder for the same names."""
        behave(ca, coalesce=True)
        first = await client.order(NAME)
        second = await client.order(NAME.upper(), notAfter="2099-01-01T00:00:00Z")
        other = await client.order("two.example.test")
        assert first.headers["Location"] == second.headers["Location"] != other.headers["Location"]
        await client.finalize(first.json(), make_csr([NAME]))
        refused = await client.finalize(second.json(), make_csr([NAME]))
        assert refused.problem == "orderNotReady"
        assert (await client.order(NAME)).headers["Location"] != first.headers["Location"]
        assert len(ca.ledger.orders) == 3

    async def test_an_honest_ca_never_coalesces(self, client: AcmeClient) -> None:
        """Every newOrder makes an order of its own."""
        one, two = await client.order(NAME), await client.order(NAME)
        assert one.headers["Location"] != two.headers["Location"]

    async def test_profiles(self, ca: HostileCa, client: AcmeClient) -> None:
        """Profiles are advertised, have their lifetimes, and unknown ones are refused."""
        ca.script.profiles = {"brief": 3600}
        assert "brief" in (await client.get(ca.directory_url)).json()["meta"]["profiles"]
        leaf = await leaf_of(client, profile="brief")
        left = leaf.not_valid_after_utc - authority.real_now()
        assert left <= datetime.timedelta(hours=1)
        assert (await client.order(NAME, profile="long")).problem == "invalidProfile"

    @pytest.mark.parametrize("shown", [AfterFinalize.PROCESSING, AfterFinalize.READY])
    async def test_an_order_that_takes_its_time(
        self, ca: HostileCa, client: AcmeClient, shown: AfterFinalize
    ) -> None:
        """It shows something else as often as it was told, then valid."""
        behave(ca, after_finalize=shown, polls_until_done=2, retry_after="7")
        answer = await client.order(NAME)
        seen = [await client.finalize(answer.json(), make_csr([NAME]))]
        seen += [await client.post(answer.headers["Location"]) for _ in range(2)]
        assert [each.json()["status"] for each in seen] == [shown, shown, "valid"]
        assert [each.headers.get("Retry-After") for each in seen] == ["7", "7", None]
        assert len(ca.ledger.certificates) == 1

    async def test_an_order_that_never_ends(self, ca: HostileCa, client: AcmeClient) -> None:
        """It stays processing, and gives no Retry-After where that is left out."""
        behave(
            ca, after_finalize=AfterFinalize.PROCESSING, polls_until_done=FOREVER, retry_after=None
        )
        answer = await client.order(NAME)
        await client.finalize(answer.json(), make_csr([NAME]))
        for _ in range(5):
            again = await client.post(answer.headers["Location"])
            assert again.json()["status"] == "processing"
            assert "Retry-After" not in again.headers

    async def test_an_order_refused_for_good(self, ca: HostileCa, client: AcmeClient) -> None:
        """Finalize is accepted, nothing is signed, and the order is invalid with a reason."""
        behave(ca, after_finalize=AfterFinalize.INVALID)
        answer = await client.order(NAME)
        final = (await client.finalize(answer.json(), make_csr([NAME]))).json()
        assert (final["status"], final["error"]["status"]) == ("invalid", 403)
        assert (await client.post(answer.headers["Location"])).json()["status"] == "invalid"
        assert (len(ca.ledger.finalizes), len(ca.ledger.certificates)) == (1, 0)

    async def test_a_finalize_denied_and_done(self, ca: HostileCa, client: AcmeClient) -> None:
        """403 orderNotReady, and the order is valid all the same."""
        behave(ca, deny_finalize=True)
        answer = await client.order(NAME)
        assert (await client.finalize(answer.json(), make_csr([NAME]))).problem == "orderNotReady"
        assert (await client.post(answer.headers["Location"])).json()["status"] == "valid"

    async def test_exceptions_for_single_orders(self, ca: HostileCa, client: AcmeClient) -> None:
        """The next order is treated apart, the one after it as ever."""
        ca.script.next_orders = [Behaviour(challenge_result=ChallengeResult.INVALID)]
        first, second = await client.order(NAME), await client.order(NAME)
        assert (first.json()["status"], second.json()["status"]) == ("pending", "ready")
        await client.prove(first.json())
        assert (await client.post(first.headers["Location"])).json()["status"] == "invalid"


class TestChallenges:
    """What challenges look like."""

    async def challenges(
        self, ca: HostileCa, client: AcmeClient, name: str = NAME
    ) -> list[dict[str, str]]:
        """Return the challenges of a new order."""
        order = (await client.order(name)).json()
        found: list[dict[str, str]] = (await client.post(order["authorizations"][0])).json()[
            "challenges"
        ]
        return found

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param("../../../../etc/cron.d/x", id="path"),
            pytest.param("\"'; touch x #", id="quotes"),
            pytest.param("A" * 10_240, id="10-kB"),
        ],
    )
    async def test_a_token_of_ones_choice(
        self, ca: HostileCa, client: AcmeClient, token: str
    ) -> None:
        """Every challenge carries it."""
        ca.script.standing = Behaviour(token=token)
        assert {each["token"] for each in await self.challenges(ca, client)} == {token}

    async def test_a_challenge_without_a_token(self, ca: HostileCa, client: AcmeClient) -> None:
        """A kind without one stands before the others."""
        ca.script.standing = Behaviour(challenge_without_token=True)
        first, *rest = await self.challenges(ca, client)
        assert "token" not in first
        assert all("token" in each for each in rest)

    async def test_a_wildcard_is_for_dns_alone(self, ca: HostileCa, client: AcmeClient) -> None:
        """No http-01 for a wildcard (RFC 8555 §7.1.3 and §8.3)."""
        ca.script.standing = Behaviour()
        found = await self.challenges(ca, client, f"*.{NAME}")
        assert [each["type"] for each in found] == ["dns-01"]

    async def test_a_challenge_nobody_ever_decides(self, ca: HostileCa, client: AcmeClient) -> None:
        """The challenge stays processing and the order pending."""
        ca.script.standing = Behaviour(challenge_result=ChallengeResult.PROCESSING)
        answer = await client.order(NAME)
        await client.prove(answer.json())
        assert (await client.post(answer.headers["Location"])).json()["status"] == "pending"
