"""Challenges of clients looked at, through proxies whose credentials may lie in Vault."""

from __future__ import annotations

from broker.app.remade import Remade, Values
from broker.app.secrets import Secrets
from broker.app.settings import validation_settings
from broker.config import Config
from broker.issuance.errors import Broken
from broker.issuance.ports import Question
from broker.protocol.challenges import Observation
from broker.validation.validators import Validators

__all__ = ["ConfiguredValidators"]


class ConfiguredValidators:
    """Implements ``ports.Validator``: goes and looks with the credentials as they are now."""

    def __init__(self, config: Config, secrets: Secrets) -> None:
        """Prepare what the configuration describes.

        Raises:
            Broken: Credentials that do not lie in Vault cannot be read, or a community names no
                resolvers and the machine has none.
        """
        self._communities = {
            name: _validators(config, secrets, name) for name in config.communities
        }

    async def observe(self, question: Question) -> Observation:
        """Return what was seen; see the port.

        Raises:
            Unreachable: Credentials are needed that lie in Vault, which cannot answer now: the
                challenge goes on processing, for that says nothing about the client.
            Broken: The community is not configured, or the question lacks the account's URL.
        """
        found = self._communities.get(question.community)
        if found is None:
            raise Broken(f"community '{question.community}' has no validation settings")
        return await (await found.current()).observe(question)


def _validators(config: Config, secrets: Secrets, community: str) -> Remade[Validators]:
    proxy = config.communities[community].validation.proxy
    refs = {} if proxy is None or proxy.credentials is None else {community: proxy.credentials}

    def make(values: Values) -> Validators:
        return Validators({community: validation_settings(config, values)[community]})

    return Remade(secrets, refs, make)
