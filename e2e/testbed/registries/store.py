"""Images that are made for tests, and what a registry keeps of them."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass

DOCKER = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
OCI = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
LISTS = {
    "list": ("application/vnd.docker.distribution.manifest.list.v2+json", "docker"),
    "index": ("application/vnd.oci.image.index.v1+json", "oci"),
    "bare-index": ("application/vnd.oci.image.index.v1+json", "oci"),
}
ARCHITECTURES = ("amd64", "arm64")


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Base:
    """What every image of a store is built on, so that a node can run it: an uncompressed layer, and the command."""

    layer: bytes
    entrypoint: tuple[str, ...]


class Store:
    """Manifests and blobs by repository. The same image has the same digest everywhere, on the same `base`."""

    def __init__(self, base: Base | None = None) -> None:
        self._base = base
        self._base_blob = gzip.compress(base.layer, compresslevel=1, mtime=0) if base else b""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def put(self, repository: str, tag: str | None, kind: str = "docker", seed: str = "") -> str:
        """Put an image: `docker` (schema 2), `oci`, `list` (of docker images) or `index` (of OCI images); its digest.

        In a `bare-index` the last entry has no platform, as that of an artifact.
        """
        if kind in LISTS:
            media, part = LISTS[kind]
            parts = [(architecture, *self._image(seed, architecture, part)) for architecture in ARCHITECTURES]
            for _, part_media, part_data in parts:
                self.manifests[repository, digest_of(part_data)] = (part_media, part_data)
            entries = [
                {"mediaType": m, "size": len(d), "digest": digest_of(d), "platform": {"architecture": a, "os": "linux"}}
                for a, m, d in parts
            ]
            if kind == "bare-index":
                del entries[-1]["platform"]
            data = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}).encode()
        else:
            media, data = self._image(seed, "amd64", kind)
        digest = digest_of(data)
        self.manifests[repository, digest] = (media, data)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest
        return digest

    def clear(self) -> None:
        """Remove everything."""
        self.blobs.clear()
        self.manifests.clear()
        self.tags.clear()

    def remove(self, repository: str, tag: str) -> None:
        """Remove a tag."""
        self.tags.get(repository, {}).pop(tag, None)

    def _image(self, seed: str, architecture: str, kind: str) -> tuple[str, bytes]:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            info = tarfile.TarInfo("hello.txt")
            # The very bytes that recordings were made with: their digests are compared.
            content = (seed + architecture).encode()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        layers, raw_layers = [gzip.compress(raw.getvalue(), mtime=0)], [raw.getvalue()]
        run: dict[str, list[str]] = {"Cmd": ["/bin/true"]}
        if self._base:
            layers, raw_layers = [self._base_blob, *layers], [self._base.layer, *raw_layers]
            run = {"Entrypoint": list(self._base.entrypoint)}
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": {**run, "Labels": {"seed": seed}},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(raw_layer) for raw_layer in raw_layers]},
                "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"} for _ in layers],
            }
        ).encode()
        for blob in (*layers, config):
            self.blobs[digest_of(blob)] = blob
        media, config_media, layer_media = DOCKER if kind == "docker" else OCI
        manifest = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": {"mediaType": config_media, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": layer_media, "size": len(layer), "digest": digest_of(layer)} for layer in layers],
        }
        return media, json.dumps(manifest).encode()
