"""Names from unfinished drafts."""

import re

from broker.protocol import drafts


def test_every_draft_pins_a_revision() -> None:
    """A draft is cited with two digits of revision, so that the text can be found again."""
    pinned = [value for value in vars(drafts).values() if isinstance(value, drafts.Draft)]
    assert pinned
    for draft in pinned:
        assert re.fullmatch(r"draft-[a-z0-9-]+-\d\d", str(draft))


def test_names_are_those_of_the_pinned_revision() -> None:
    """The wire names of the drafts, written a second time from their texts."""
    assert (drafts.PROFILE_MEMBER, drafts.PROFILES_META_MEMBER) == ("profile", "profiles")
    assert drafts.INVALID_PROFILE_TOKEN == "invalidProfile"
    assert drafts.DNS_ACCOUNT_01 == "dns-account-01"
