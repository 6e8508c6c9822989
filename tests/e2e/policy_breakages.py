"""Ways to break a policy directory, and what is said about each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CASES: Final = """\
apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: a name of ours
    given: {names: [www.example.test], upstreams: [{name: local, description: built-in}]}
    expect: {decision: allow, cap: 47d}
    because: this is what it is for
"""

SHARED: Final = """\
apiVersion: penstock.dev/v1
kind: SharedRules
communities: [COMMUNITY]
rules:
  - name: no-payroll
    because: the personnel department asks elsewhere
    names: ["**.payroll.example.test"]
    refuse: ask the personnel department
"""

SHARED_KEYS: Final = """\
apiVersion: penstock.dev/v1
kind: SharedRules
communities: all
rules:
  - name: KIND
    because: its author knows of no other
    names: ["**.farm.example.test"]
    keys: [KIND]
"""


class PolicyFolder:
    """A policy directory that holds one good policy."""

    def __init__(self, policy_file: Path) -> None:
        self.policy_file = policy_file
        self.folder = policy_file.parent
        self.good = policy_file.read_bytes()

    def document(self) -> dict[str, Any]:
        """Return the good policy, to be changed."""
        made: dict[str, Any] = json.loads(self.good)
        return made

    def put(self, document: object, name: str = "default.yaml") -> None:
        """Write a policy."""
        (self.folder / name).write_text(json.dumps(document, indent=1), "utf-8")

    def put_back(self) -> None:
        """Leave nothing in the directory but the good policy."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.policy_file.write_bytes(self.good)


@dataclass(frozen=True)
class Breakage:
    """A way to break a directory, and what is said about which file."""

    name: str
    do: Callable[[PolicyFolder], object]
    words: str
    """What is said, behind file and line."""
    where: str = "default.yaml"
    """The file; ``configuration`` is the broker's own."""

    def is_told(self, faults: list[str]) -> bool:
        """Return whether one of *faults* says it, of a line of that file."""
        words = re.compile(rf"(.*/)?{re.escape(self.where)}:[0-9]+: {re.escape(self.words)}")
        return any(words.match(one) for one in faults)


def written(name: str, text: str | bytes) -> Callable[[PolicyFolder], object]:
    """Return what writes a file."""
    octets = text if isinstance(text, bytes) else text.encode()

    def do(place: PolicyFolder) -> None:
        path = place.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(octets)

    return do


def changed(**members: Any) -> Callable[[PolicyFolder], object]:
    """Return what changes members of the policy."""
    return lambda place: place.put({**place.document(), **members})


def profile(**members: Any) -> Callable[[PolicyFolder], object]:
    """Return what changes members of its profile."""

    def do(place: PolicyFolder) -> None:
        document = place.document()
        document["profiles"]["server"] |= members
        place.put(document)

    return do


def rules(*made: dict[str, Any]) -> Callable[[PolicyFolder], object]:
    """Return what adds rules."""
    return changed(rules=[{"because": "a test", **rule} for rule in made])


BOMB: Final = "a: &a [x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)

BREAKAGES: Final = (
    Breakage("empty", written("default.yaml", ""), "the file is empty, which allows nothing"),
    Breakage("only a comment", written("default.yaml", "# nothing\n"), "the file is empty, which"),
    Breakage("no YAML", written("default.yaml", "a: [1, 2\nb"), "is not YAML: "),
    Breakage(
        "half written",
        lambda place: (place.folder / "default.yaml").write_bytes(place.good[:400]),
        "is not YAML: ",
    ),
    Breakage(
        "a list",
        written("default.yaml", "- a\n- b\n"),
        "expected a mapping from keys to values, found a list",
    ),
    Breakage("no text", written("default.yaml", b"\xff\xfe\x00"), "is not UTF-8"),
    Breakage("a zero octet", written("default.yaml", b"a: \x00\n"), "is not YAML: unacceptable"),
    Breakage("a bomb", written("default.yaml", BOMB), "a: anchor '&a' is not read (write it out)"),
    Breakage(
        "a tag",
        written("default.yaml", "a: !!python/object:os.system x\n"),
        "a: tag '!!python/object:os.system' is not read (leave it out)",
    ),
    Breakage(
        "two documents",
        written("default.yaml", "a: 1\n---\nb: 2\n"),
        "a second document starts here, expected one a file",
    ),
    Breakage("deep", written("default.yaml", "[" * 200 + "]" * 200), "is nested deeper than 20 le"),
    Breakage(
        "wide",
        written("default.yaml", "a: [" + "x," * 60_000 + "x]\n"),
        "has more than 50000 keys and values",
    ),
    Breakage(
        "50 MB",
        written("default.yaml", b"#" * 50_000_000),
        "is 50000000 bytes long, the limit is 1048576 bytes",
    ),
    Breakage("unknown key", changed(colour="red"), "colour: unknown key 'colour'"),
    Breakage(
        "key twice",
        lambda place: (place.folder / "default.yaml").write_bytes(
            place.good.replace(b'"cap"', b'"cap": "1d", "cap"', 1)
        ),
        "key 'cap' stands here twice",
    ),
    Breakage("wrong kind", changed(kind="Policies"), "kind: expected 'Policy', found 'Policies'"),
    Breakage("cap of zero", changed(cap="0d"), "cap: '0d' is zero, expected a duration longer"),
    Breakage("cap below zero", changed(cap="-1d"), "cap: '-1d' is not a duration such as '90d'"),
    Breakage("cap without a unit", changed(cap=90), "cap: 90 has no unit, expected a duration"),
    Breakage(
        "unknown upstream",
        profile(upstreams=[{"upstream": "locale"}]),
        "profiles.server.upstreams[0]: no upstream is called 'locale'",
    ),
    Breakage(
        "unknown upstream profile",
        profile(upstreams=[{"upstream": "local", "profile": "sever"}]),
        "profiles.server.upstreams[0]: upstream 'local' profile 'sever' is not known",
    ),
    Breakage(
        "unknown default profile",
        changed(default_profile="none"),
        "default_profile: there is no profile 'none'",
    ),
    Breakage(
        "a pattern that is none",
        changed(names={"allow": ["(a+)+$"]}),
        "names.allow[0]: '(a+)+$' has a label that is not made of letters, digits and inner",
    ),
    Breakage(
        "another community",
        changed(community="lab"),
        "communities.default: community 'default' has no policy, so nothing would be issued",
        "configuration",
    ),
    Breakage(
        "two policies",
        lambda place: (place.folder / "more.yaml").write_bytes(place.good),
        "community: community 'default' has a policy already: default.yaml",
        "more.yaml",
    ),
    Breakage(
        "gone",
        lambda place: (place.folder / "default.yaml").unlink(),
        "communities.default: community 'default' has no policy, so nothing would be issued",
        "configuration",
    ),
    Breakage(
        "a link to nothing",
        lambda place: (place.folder / "x.yaml").symlink_to("gone.yaml"),
        "leads to nothing (a link whose end is missing)",
        "x.yaml",
    ),
    Breakage(
        "links in a circle",
        lambda place: (place.folder / "x.yaml").symlink_to("x.yaml"),
        "leads to nothing (a link whose end is missing)",
        "x.yaml",
    ),
    Breakage(
        "a pipe", lambda place: os.mkfifo(place.folder / "x.yaml"), "is no regular file", "x.yaml"
    ),
    Breakage(
        "a folder", lambda place: (place.folder / "x.yaml").mkdir(), "is no regular file", "x.yaml"
    ),
    Breakage(
        "a name nobody reads",
        written("deny.yml", "a: 1\n"),
        "is not read for its name (call it deny.yaml, or take it away)",
        "deny.yml",
    ),
    Breakage(
        "a case that fails",
        written("cases/default.yaml", CASES.replace("47d", "1d")),
        "case 'a name of ours': expected cap 1d, got 47d",
        "cases/default.yaml",
    ),
    Breakage(
        "cases that are none",
        written("cases/default.yaml", "a: 1\n"),
        "a: unknown key 'a'",
        "cases/default.yaml",
    ),
    Breakage(
        "facts that are none",
        written("upstreams.yaml", "a: 1\n"),
        "a: unknown key 'a'",
        "upstreams.yaml",
    ),
    Breakage(
        "rules for nobody",
        written("shared/x.yaml", SHARED.replace("COMMUNITY", "nobody")),
        "communities: there is no policy of a community 'nobody'",
        "shared/x.yaml",
    ),
    Breakage(
        "one name for two rules",
        rules({"name": "a", "refuse": "no"}, {"name": "a", "refuse": "never"}),
        "rule 'a': a rule is called 'a' already: rule 'a' (default.yaml:",
    ),
    Breakage(
        "a rule that asks nothing",
        rules({"name": "a"}),
        "rules[0]: rule 'a' demands nothing, expected refuse",
    ),
    Breakage(
        "a rule for no upstream",
        rules({"name": "a", "upstreams": ["locale"]}),
        "rule 'a': no profile of community 'default' has an upstream 'locale'",
    ),
    Breakage(
        "a rule that is over",
        rules({"name": "a", "refuse": "no", "until": "2020-01-01"}),
        "rule 'a': ends on 2020-01-01, which is in the past: it would never do anything",
    ),
    Breakage(
        "a rule that cannot be read",
        rules({"name": "a", "when": "1 +"}),
        "rules[0].when: expression, line 1, column 4: Syntax error",
    ),
    Breakage(
        "two rules that contradict",
        rules({"name": "a", "keys": ["ec-p256"]}, {"name": "b", "keys": ["rsa-2048"]}),
        "rule 'b': contradicts rule 'a' (default.yaml:",
    ),
    Breakage(
        "two files that contradict",
        lambda place: [
            written(f"shared/{kind}.yaml", SHARED_KEYS.replace("KIND", kind))(place)
            for kind in ("ec-p256", "rsa-2048")
        ],
        "rule 'rsa-2048': contradicts rule 'ec-p256' (shared/ec-p256.yaml:",
        "shared/rsa-2048.yaml",
    ),
    Breakage(
        "files that include each other",
        lambda place: [
            written(
                f"shared/{one}.yaml",
                f"include: [{other}.yaml]\n" + SHARED.replace("COMMUNITY", "default"),
            )(place)
            for one, other in ("ab", "ba")
        ],
        "include: unknown key 'include'",
        "shared/a.yaml",
    ),
    Breakage(
        "a regular expression that looks back",
        rules({"name": "a", "when": r"name.matches('(a+)\\1')", "refuse": "no"}),
        r"rules[0].when: regular expression '(a+)\\1': ",
    ),
)
"""Ways to break a policy directory, more than battery 22 asks for."""
