"""What all sections of the configuration have in common, and names that they share."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict

from broker.policy.names import parse_pattern
from broker.policy.node_names import parse_node_pattern
from broker.policy.yamlfile import FileModel

__all__ = ["ConfigName", "NodePatternText", "PatternText", "ProfileName", "Section"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class Section(FileModel):
    """A part of the file.  The text below a key in the source is what the documentation says."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _check_name(value: str) -> str:
    # Names of communities stand in URLs, those of upstreams in metrics and file names.
    if _NAME.fullmatch(value) is None:
        raise ValueError("a name is 1 to 63 lower case letters, digits and '-'")
    return value


def _check_profile(value: str) -> str:
    if _PROFILE.fullmatch(value) is None:
        raise ValueError("a profile's name is 1 to 64 letters, digits, '.', '_' and '-'")
    return value


ConfigName = Annotated[str, AfterValidator(_check_name)]
"""The name of a community or an upstream."""

ProfileName = Annotated[str, AfterValidator(_check_profile)]
"""The name of a profile, which clients see."""

NodePatternText = Annotated[str, AfterValidator(lambda value: str(parse_node_pattern(value)))]
"""A pattern of names of nodes, which may have a single label."""

PatternText = Annotated[str, AfterValidator(lambda value: str(parse_pattern(value)))]
"""A pattern of names, as policies have them."""
