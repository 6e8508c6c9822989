"""docs/kubernetes.md, typed word for word on an empty cluster."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import AGENT_IMAGE, BROKER_IMAGE, NGINX_IMAGE, REPOSITORY, Built
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import image_values
from tests.kubernetes.report import Report

PAGE: Final = REPOSITORY / "docs" / "kubernetes.md"
BLOCK: Final = re.compile(r"<!-- walk: (?P<kind>[^>]*) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
"""A block that the walk does something with, and what."""

COMMANDS: Final = 5
"""How many commands lead from an empty cluster to a served certificate."""

COMMAND_SECONDS: Final = 330.0
"""Longest that one command may take: the page's own time-outs come first."""


@dataclass(frozen=True, slots=True)
class Typed:
    """One block: what was typed, whether it may fail, and what is looked for in what it prints."""

    commands: tuple[str, ...]
    fails: bool
    shows: list[str] = field(default_factory=list)


def read_walk(text: str) -> list[Typed]:
    """Return the blocks of the page that are typed, in their order."""
    found: list[Typed] = []
    for block in BLOCK.finditer(text):
        kind, content = block["kind"], block["text"]
        if kind == "shows":
            found[-1].shows.extend(content.splitlines())
        elif kind.startswith("run"):
            found.append(Typed(tuple(content.splitlines()), kind == "run, fails"))
    return found


PUBLISHED_NGINX: Final = "docker.io/library/nginx:1.29"
"""What the example calls its image; Debian's nginx stands in for it."""


@pytest.fixture(scope="module")
def empty_cluster(images: Mapping[str, Built]) -> Iterator[Cluster]:
    """A cluster of its own with nothing on it, the images, and a volume for whoever claims one."""
    with Cluster() as cluster:
        for tree in TREES:
            cluster.load_image(tree_archive(tree))
        for built in images.values():
            cluster.load_image(built.archive)
        cluster.tag_image(NGINX_IMAGE, PUBLISHED_NGINX)
        cluster.volume("anything", "10Gi")
        yield cluster


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader has: the clone, and a values.yaml with the images' own place in it."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / "helm", folder / "helm")
    values = {"image": image_values(BROKER_IMAGE), "agentImage": image_values(AGENT_IMAGE)}
    (folder / "values.yaml").write_text(yaml.safe_dump(values), "utf-8")
    return folder


def test_five_commands_lead_to_a_served_certificate(
    empty_cluster: Cluster, clone: Path, report: Report
) -> None:
    """Each command ends as the page says and prints what it shows; all of it is kept to be read."""
    walk = read_walk(PAGE.read_text("utf-8"))
    first = [typed for typed in walk if typed.commands][:COMMANDS]
    assert [len(typed.commands) for typed in first] == [1] * COMMANDS
    assert first[-1].shows, "the last of them shows what is served"
    story: list[str] = []
    try:
        for typed in walk:
            _type(empty_cluster, clone, typed, story)
    finally:
        report.transcripts["From an empty cluster to a served certificate"] = "\n".join(story)


def _type(cluster: Cluster, folder: Path, typed: Typed, story: list[str]) -> None:
    printed = ""
    for command in typed.commands:
        status, told = cluster.attempt(
            ["bash", "-c", command], folder=folder, seconds=COMMAND_SECONDS
        )
        story += [f"$ {command}", told.rstrip(), ""]
        is_fine = (status != 0) is typed.fails
        assert is_fine, f"{command}\n{told}\n{cluster.story('penstock')}\n{cluster.story('shop')}"
        printed += told
    for line in typed.shows:
        assert line in printed
