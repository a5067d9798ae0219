"""Images from manifests and configurations, as the platform stores them."""

import json
from typing import Any

from e2e.testbed.simulator.images.fetch import Manifest
from e2e.testbed.simulator.images.registry_errors import RegistryError
from e2e.testbed.simulator.store import timestamp

Object = dict[str, Any]
LISTS = ("application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json")
_METADATA = {"kind": "DockerImage", "apiVersion": "image.openshift.io/1.0"}


def is_list(manifest: Manifest) -> bool:
    """Whether a manifest names others, one for each platform."""
    return manifest.media in LISTS


def image_from_list(manifest: Manifest) -> Object:
    """The Image of a manifest list."""
    entries = []
    for entry in manifest.content.get("manifests") or []:
        platform = entry.get("platform") or {}
        made = {
            "digest": entry["digest"],
            "mediaType": entry["mediaType"],
            "manifestSize": entry["size"],
            "architecture": platform.get("architecture", ""),
            "os": platform.get("os", ""),
        }
        if platform.get("variant"):
            made["variant"] = platform["variant"]
        entries.append(made)
    return {
        "metadata": {"name": manifest.digest},
        "dockerImageMetadata": {**_METADATA, "Id": manifest.digest, "Created": timestamp(), "ContainerConfig": {}},
        "dockerImageMetadataVersion": "1.0",
        "dockerImageManifestMediaType": manifest.media,
        "dockerImageManifests": entries,
    }


def image_from_manifest(manifest: Manifest, configuration: bytes) -> Object:
    """The Image of a single manifest, with the manifest and the configuration in it. Raises RegistryError."""
    content = manifest.content
    try:
        config = json.loads(configuration)
        layers = [{"name": layer["digest"], "size": layer["size"], "mediaType": layer["mediaType"]} for layer in content["layers"]]
        config_digest = content["config"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"unsupported image manifest: {error}") from error
    metadata: Object = {
        **_METADATA,
        "Id": config_digest,
        "Created": config.get("created"),
        "ContainerConfig": config.get("container_config") or {},
        "Architecture": config.get("architecture"),
        "Size": sum({layer["name"]: layer["size"] for layer in layers}.values()) + len(configuration),
    }
    if config.get("config"):
        metadata["Config"] = config["config"]
    for name, key in (("author", "Author"), ("docker_version", "DockerVersion")):
        if config.get(name):
            metadata[key] = config[name]
    return {
        "metadata": {"name": manifest.digest, "annotations": {"image.openshift.io/dockerLayersOrder": "ascending"}},
        "dockerImageMetadata": metadata,
        "dockerImageMetadataVersion": "1.0",
        "dockerImageManifest": manifest.data.decode(),
        "dockerImageConfig": configuration.decode(),
        "dockerImageManifestMediaType": manifest.media,
        "dockerImageLayers": layers,
    }


def without_manifest(image: Object) -> Object:
    """An Image without the texts that are left out unless they were asked for."""
    return {key: value for key, value in image.items() if key not in ("dockerImageManifest", "dockerImageConfig")}
