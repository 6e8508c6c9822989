"""The events of YAML, as ruamel.yaml tells them and in less time.

Its scanner is asked about ten times for each token whether it has tokens enough, works that out
anew each time, and reads a word one character after the other.  Here the answer is remembered until
a token is taken, and a word that ends where everybody sees it end is read at once.  What is not as
plain as that is left to ruamel.yaml, so that there is one parser and no second opinion on any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.events import Event
from ruamel.yaml.parser import Parser
from ruamel.yaml.scanner import Scanner
from ruamel.yaml.tokens import ScalarToken

__all__ = ["events_of"]

_WORDS: Final = r"[A-Za-z0-9_./@+=()'\"*-]+(?: +[A-Za-z0-9_./@+=()'\"*-]+)*"
"""Characters that mean nothing behind the first one of a plain scalar, and spaces between them."""

_KEY: Final = re.compile(_WORDS + r"(?=:[ \n])")
_ENTRY: Final = re.compile(_WORDS + r"(?=[,\]}])")
_LINE: Final = re.compile(_WORDS + r"(?=\n( *)[A-Za-z0-9_\"'-])")


def events_of(text: str) -> Iterator[Event]:
    """Return the events of *text*; raises what ruamel.yaml does, as it goes along."""
    loader = YAML(typ="safe", pure=True)
    loader.Scanner, loader.Parser = _Scanner, _Parser
    events: Iterator[Event] = loader.parse(text)
    return events


class _Scanner(Scanner):
    """Remembers that it has tokens enough, and reads plain words at once."""

    reader: Any = None
    """What ruamel.yaml looks up anew each time."""

    def __init__(self, loader: Any = None) -> None:
        self.reader = loader.reader
        self._has_enough = False
        super().__init__(loader)

    def _fill(self) -> None:
        while self.need_more_tokens():
            self.fetch_more_tokens()
        self._has_enough = True

    def check_token(self, *choices: Any) -> bool:
        """Return whether the next token is one of *choices*."""
        if not self._has_enough:
            self._fill()
        return bool(self.tokens) and (not choices or isinstance(self.tokens[0], choices))

    def peek_token(self) -> Any:
        """Return the next token and leave it there."""
        if not self._has_enough:
            self._fill()
        return self.tokens[0] if self.tokens else None

    def get_token(self) -> Any:
        """Take the next token."""
        if not self._has_enough:
            self._fill()
        self._has_enough = False
        if not self.tokens:
            return None
        self.tokens_taken += 1
        return self.tokens.pop(0)

    def scan_plain(self) -> Any:
        """Read a plain scalar: at once where it ends before a colon, a comma, a bracket, or a line
        that is not indented further."""
        reader, is_flow = self.reader, bool(self.flow_context)
        found = _KEY.match(reader.buffer, reader.pointer)
        if found is None:
            found = (_ENTRY if is_flow else _LINE).match(reader.buffer, reader.pointer)
        if found is None:
            return super().scan_plain()
        spaces = found[1] if found.re is _LINE else None
        is_marker = spaces == "" and reader.buffer[found.end() + 1] == "-"
        if spaces is not None and (len(spaces) > self.indent or is_marker):
            return super().scan_plain()
        start = reader.get_mark()
        self._pass(found.end() - found.start())
        end = reader.get_mark()
        self.allow_simple_key = False
        if spaces is not None:
            reader.forward()
            self._pass(len(spaces))
            self.allow_simple_key = True
        return ScalarToken(value=found[0], plain=True, start_mark=start, end_mark=end)

    def _pass(self, length: int) -> None:
        """Go on by so many characters, of which none ends a line."""
        reader = self.reader
        reader.pointer += length
        reader.index += length
        reader.column += length


class _Parser(Parser):
    """Knows its scanner, which ruamel.yaml looks up anew each time."""

    scanner: Any = None

    def __init__(self, loader: Any) -> None:
        self.scanner = loader.scanner
        super().__init__(loader)
