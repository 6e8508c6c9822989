"""What is known of the configuration in force, and of the one that is refused."""

from datetime import timedelta

from structlog.testing import capture_logs

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome, ReadConfig, sentences
from broker.issuance.errors import Broken, Unreachable
from broker.policy.yamlfile import Fault, Faults
from tests.fakes.clock import FakeClock
from tests.unit.config.conftest import parsed, write

JANE = {"people": {"jane": {"users": ["jdoe"], "roles": {"default": ["approver"]}}}}


def reading(**changes: object) -> ReadConfig:
    """Return the smallest configuration with *changes*."""
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return ReadConfig(config=parsed(given), text=write(given))


def test_people_make_no_other_configuration() -> None:
    """They are read again by themselves; the twin, a level of the log, is another."""
    first = reading()
    assert first.is_like(reading(operators=JANE).config)
    assert not first.is_like(reading(log__level="debug").config)


def test_people_can_be_those_of_another_reading() -> None:
    """Everything else stays."""
    made = reading(log__level="debug").with_people_of(reading(operators=JANE))
    assert made.config.operators is not None
    assert set(made.config.operators.people) == {"jane"}
    assert made.text == reading(log__level="debug").text


def test_refusal_is_told_once_and_shown_until_it_is_over() -> None:
    """For each content and reason; what serves is named beside it."""
    clock = FakeClock()
    keeper = ConfigKeeper(reading(), clock)
    assert keeper.warning() is None
    clock.advance(timedelta(hours=1))
    with capture_logs() as logs:
        for _ in range(3):
            keeper.refuse(ConfigOutcome.REFUSED, ("a: is wrong", "b: too"), "00")
        keeper.refuse(ConfigOutcome.REFUSED, ("c: is wrong",), "01", is_final=False)
    assert [line["faults"] for line in logs] == [["a: is wrong", "b: too"], ["c: is wrong"]]
    assert keeper.counts[ConfigOutcome.REFUSED] == 2
    assert keeper.warning() == (
        "file is refused since 2026-03-01T13:00:00Z and that of 2026-03-01T12:00:00Z stays in "
        "force: c: is wrong"
    )
    assert keeper.view()["refused"] == {
        "sha256": "01",
        "since": "2026-03-01T13:00:00Z",
        "is_tried_again": True,
        "faults": ["c: is wrong"],
    }
    keeper.agree()
    assert keeper.warning() is None
    assert keeper.view()["refused"] is None


def test_what_is_taken_is_in_force_from_then_on() -> None:
    """And nothing is refused any more."""
    clock = FakeClock()
    keeper = ConfigKeeper(reading(), clock)
    keeper.refuse(ConfigOutcome.FAILED, ("no",), "00")
    keeper.resume(reading(log__level="error"))
    assert keeper.is_last_good
    clock.advance(timedelta(hours=1))
    people, other = keeper.people, reading(log__level="debug")
    keeper.take(other)
    # Whose people count is told by whoever reads them: they may have been refused.
    assert (keeper.in_force, keeper.people, keeper.refusal) == (other, people, None)
    assert not keeper.is_last_good
    assert keeper.view()["since"] == "2026-03-01T13:00:00Z"


def test_each_fault_is_a_sentence() -> None:
    """Whatever it came as."""
    faults = Faults([Fault("a.yaml", 1, "b", "is wrong"), Fault("a.yaml", 2, "c", "is wrong")])
    assert len(sentences(faults)) == 2
    assert sentences(Broken("it is broken")) == ("it is broken",)
    assert sentences(Unreachable("it is away")) == ("it is away",)
