"""Images packed by hand, as ``docker save`` would: one layer, a configuration, a manifest.

For what is made here without an engine; images of ours are built by one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1024 * 1024
"""How much of a layer is read at a time."""


def write_image(
    target: Path,
    tag: str,
    *,
    layer: Path | None = None,
    files: Mapping[str, Path] | None = None,
    entrypoint: Sequence[str] = (),
    user: int = 0,
) -> None:
    """Write the archive of an image whose one layer is *layer*, or holds *files* by their paths."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        if layer is None:
            layer = Path(scratch) / "layer.tar"
            _pack(layer, files or {})
        digest = _digest(layer)
        described = _description(digest, entrypoint, user)
        name = hashlib.sha256(described).hexdigest()
        manifest = [
            {"Config": f"{name}.json", "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}
        ]
        part = Path(scratch) / "image.tar"
        with tarfile.open(part, "w") as archive:
            with layer.open("rb") as content:
                entry = tarfile.TarInfo(f"{digest}/layer.tar")
                entry.size = layer.stat().st_size
                archive.addfile(entry, content)
            _add(archive, f"{name}.json", described)
            _add(archive, "manifest.json", json.dumps(manifest).encode())
        shutil.move(part, target)


def _description(digest: str, entrypoint: Sequence[str], user: int) -> bytes:
    config: dict[str, Any] = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    }
    if entrypoint:
        config["Entrypoint"] = list(entrypoint)
    if user:
        config["User"] = str(user)
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()


def _pack(layer: Path, files: Mapping[str, Path]) -> None:
    with tarfile.open(layer, "w") as archive:
        for name, path in sorted(files.items()):
            _add(archive, name, path.read_bytes(), mode=0o755)


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    archive.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
