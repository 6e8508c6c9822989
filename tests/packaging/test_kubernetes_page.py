"""Blocks of docs/kubernetes.md that no cluster is started for: the broker takes them."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tests.packaging.charts import rendered
from tests.packaging.test_chart_values import check, place
from tests.peers.helm import render

pytestmark = pytest.mark.peers

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PAGE: Final = REPOSITORY / "docs" / "kubernetes.md"
BLOCK: Final = re.compile(r"<!-- clusters: (?P<kind>\w+) -->\n```yaml\n(?P<text>.*?)```", re.S)


def blocks() -> dict[str, Any]:
    """Return what the page says about further clusters, by kind."""
    reader = YAML(typ="safe", pure=True)
    found = BLOCK.finditer(PAGE.read_text("utf-8"))
    return {one["kind"]: reader.load(one["text"]) for one in found}


def told(tmp_path: Path, policy: dict[str, Any]) -> Any:
    """Return what `penstock check` says of the page's values with changes to the chart's policy."""
    reader = YAML(typ="safe", pure=True)
    text = rendered("default").one("ConfigMap", "penstock-policies")["data"]["default.yaml"]
    files = {"default.yaml": json.dumps(reader.load(text) | policy)}
    made = render(values={**blocks()["values"], "policies": {"files": files}})
    keys = tmp_path / "etc/penstock/files/staging/keys.json"
    keys.parent.mkdir(parents=True)
    keys.write_text('{"keys": []}', "ascii")
    return check(place(made, tmp_path), "--strict")


def test_a_further_cluster_is_taken_as_the_page_says(tmp_path: Path) -> None:
    """Values and policy together, with nothing to warn of."""
    done = told(tmp_path, blocks()["policy"])
    assert (done.returncode, done.stderr) == (0, "")
