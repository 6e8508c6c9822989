"""Terms of service: agreed to at the beginning, and anew when they changed (RFC 8555 §7.3.3)."""

from __future__ import annotations

from broker.issuance.records import AccountRecord
from broker.issuance.settings import CommunitySettings
from broker.protocol.problems import Problem, ProblemType

__all__ = ["agreed_version", "check_agreed", "check_current"]


def agreed_version(demands: CommunitySettings) -> str | None:
    """Return which version somebody who agrees now agrees to; None where none is counted."""
    return demands.terms_version if demands.terms_of_service is not None else None


def check_agreed(demands: CommunitySettings, *, is_agreeing: bool) -> None:
    """Refuse a new account that does not agree to the terms there are.

    Raises:
        Problem: userActionRequired.
    """
    if demands.terms_of_service is not None and not is_agreeing:
        raise Problem(
            ProblemType.USER_ACTION_REQUIRED,
            f"the terms of service at {demands.terms_of_service} have to be agreed to",
            links=(("terms-of-service", demands.terms_of_service),),
        )


def check_current(demands: CommunitySettings, account: AccountRecord) -> None:
    """Refuse the work of an account that agreed to other terms than those in force.

    One reading of ours: it agrees by ``termsOfServiceAgreed`` in an update of its account, or in
    newAccount with its key, which is what clients can send when a person tells them to.

    Raises:
        Problem: userActionRequired, with where a person reads how to agree.
    """
    terms, version = demands.terms_of_service, agreed_version(demands)
    if terms is None or version is None or account.terms_version == version:
        return
    raise Problem(
        ProblemType.USER_ACTION_REQUIRED,
        f"the terms of service at {terms} have changed to version {version!r} and have to be "
        "agreed to anew: register again with the same key and agree",
        instance=demands.terms_instance or terms,
        links=(("terms-of-service", terms),),
    )
