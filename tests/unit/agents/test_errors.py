"""What the agent does next decides which error it is."""

from agents.errors import Impostor, NotKnown, Refused, Unreachable


def test_an_impostor_is_tried_again_like_one_who_is_away() -> None:
    """The broker's own certificate may have ended and be replaced: that is no reason to give up."""
    assert issubclass(Impostor, Unreachable)


def test_not_being_known_is_a_refusal_that_names_its_type() -> None:
    """It says status and type, so that a log tells what to look for."""
    refusal = NotKnown(401, "stale-signature", "sign anew")
    assert isinstance(refusal, Refused)
    assert str(refusal) == "refused with 401 stale-signature: sign anew"
