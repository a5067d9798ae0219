"""The configuration file: one mounted YAML document, validated whole, reloaded when it changes.

A controller that falls over because somebody mistyped a ConfigMap would take the cluster's images with it, so a broken new
file is reported and the old settings stay in force; a broken file at the start is an error, since there is nothing to keep.
"""

import hashlib
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mirrorstream import yamltext
from mirrorstream.safetext import one_line, shortened

log = structlog.get_logger(__name__)

PROBLEMS = 20
"""Wrong fields that are named."""

Namespace = Annotated[str, Field(min_length=1, max_length=63)]


class SettingsError(Exception):
    """The configuration cannot be used; the text names the file and the field."""


class _Section(BaseModel):
    """What all sections share: unknown fields are errors, since a typo must not silently mean the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MirrorSettings(_Section):
    """How the mirror rules are read."""

    tagsThroughDigestMirrors: bool = Field(
        default=True,
        description="Import tags through ICSP and IDMS mirrors too, which nodes use for digests only. A mirror's tag can be "
        "older than the source's.",
    )
    bypassNotFound: bool = Field(
        default=False,
        description="Also import through the mirrors what the source itself says it does not have. A stale mirror can bring a "
        "deleted tag back.",
    )


class RetrySettings(_Section):
    """How long the controller waits between attempts of a stream whose candidates all fail."""

    initialSeconds: float = Field(default=5, gt=0, le=3600, description="First wait, in seconds.")
    maximumSeconds: float = Field(default=300, gt=0, le=86400, description="Longest wait, in seconds.")

    @model_validator(mode="after")
    def _ordered(self) -> "RetrySettings":
        if self.maximumSeconds < self.initialSeconds:
            raise ValueError("maximumSeconds must not be smaller than initialSeconds")
        return self


class NamespaceSettings(_Section):
    """Which namespaces' streams are looked after; globs as in `team-*`."""

    include: tuple[Namespace, ...] = Field(default=(), strict=False, description="Only these namespaces; empty means all.")
    exclude: tuple[Namespace, ...] = Field(default=(), strict=False, description="Never these, even when included.")

    def cover(self, namespace: str) -> bool:
        """Whether streams in `namespace` are looked after."""
        if any(fnmatchcase(namespace, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(namespace, pattern) for pattern in self.include)


class ControllerSettings(_Section):
    """The controller's own settings."""

    recordedReference: Literal["auto", "source", "mirror"] = Field(
        default="auto",
        description="Which reference a tag's history gets: the source's (what the platform itself records), the mirror's, or, "
        "with auto, the source's where a digest mirror covers it and the mirror's elsewhere.",
    )
    concurrentImports: int = Field(
        default=16, ge=1, le=256, description="Imports at once; at most half of them at one mirror host."
    )
    stuckAfterSeconds: float = Field(
        default=180,
        ge=0,
        description="A platform import pending for so long counts as failed; 0 means never, unless the source failed before: the "
        "platform does not write the same failure twice.",
    )
    replaceAfterSeconds: float = Field(
        default=3600,
        ge=0,
        description="How long a source must have failed before a mirror's other digest replaces what came from the source.",
    )
    apiRequestsPerSecond: float = Field(
        default=200,
        gt=0,
        le=10000,
        description="Requests to the API server per second, with a burst of three seconds' worth.",
    )
    retry: RetrySettings = RetrySettings()
    namespaces: NamespaceSettings = NamespaceSettings()


class WebhookSettings(_Section):
    """The webhook's own settings."""

    sharedNamespaces: tuple[Namespace, ...] = Field(
        default=("openshift",),
        strict=False,
        description="Namespaces whose streams serve pods of every namespace, in order.",
    )
    checkAccess: bool = Field(
        default=True,
        description="Use a stream only if the pod's service account may pull from it. "
        "Without, pods are pointed at streams whose images they may not be able to pull.",
    )
    respectImagePolicies: bool = Field(
        default=True,
        description="Leave images alone that a signature policy or a blocked registry covers. "
        "Without, they do not keep an image from being rewritten.",
    )
    scope: Literal["mirrored", "all"] = Field(
        default="mirrored", description="Rewrite only images that a mirror set covers, or every Local tag's image."
    )
    pendingTags: Literal["leave", "rewrite"] = Field(
        default="leave",
        description="What happens to an image whose tag has failed and is not healed yet: it stays, or becomes the internal "
        "registry's tag, which can be pulled once it is healed.",
    )
    excludeOwners: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Owners, as Kind.group, whose pods are left alone because they compare images.",
    )


class Settings(_Section):
    """The whole file; every field has a default, so an empty file is a valid one."""

    mode: Literal["active", "observe"] = Field(
        default="active", description="observe: decides, logs and counts, but writes nothing and rewrites nothing."
    )
    mirrors: MirrorSettings = MirrorSettings()
    controller: ControllerSettings = ControllerSettings()
    webhook: WebhookSettings = WebhookSettings()


def parse_settings(text: str, where: str) -> Settings:
    """Validate the text of a configuration file.

    `where` names the file in errors. Raises SettingsError with one line that names each wrong field by its path.
    """
    try:
        document: Any = yamltext.document(text)
    except yamltext.YamlError as error:
        raise SettingsError(f"{where}, {error}" if str(error).startswith("line ") else f"{where}: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: expected a mapping at the top, found {type(document).__name__}")
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        problems = [f"{_field(e['loc'])}: {_explain(e)}" for e in found[:PROBLEMS]]
        more = [f"and {len(found) - PROBLEMS} more"] if len(found) > PROBLEMS else []
        raise SettingsError(f"{where}: {'; '.join([*problems, *more])}") from error


def _field(path: tuple[int | str, ...]) -> str:
    return shortened(one_line(".".join(str(part) for part in path)), 200) or "document"


def _explain(error: Any) -> str:
    """Say in the user's terms what pydantic found."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return text
    return f"{text[0].lower()}{text[1:]}, found {shortened(repr(error['input']), 200)}"


def read_settings(path: str | None) -> Settings:
    """Read the configuration file at `path`; None means all defaults. Raises SettingsError."""
    if path is None:
        return Settings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, path)


class SettingsFile:
    """The settings in force, kept current with the file they came from.

    The file is compared by content every `interval` seconds: a mounted ConfigMap changes by a swap of symbolic links, which
    notifications on the file itself miss.
    """

    def __init__(self, path: str | None, *, interval: float = 2.0) -> None:
        """Read the file for the first time. Raises SettingsError."""
        self._path = path
        self._on_change: Callable[[Settings], None] = lambda settings: None
        self._on_result: Callable[[bool], None] = lambda accepted: None
        self._interval = interval
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = self._fingerprint()
        self.current = read_settings(path)

    def subscribe(self, on_change: Callable[[Settings], None], on_result: Callable[[bool], None]) -> None:
        """Have `on_change` told of new settings, and `on_result` whether a reload was accepted, both from the watching thread."""
        self._on_change, self._on_result = on_change, on_result

    def _fingerprint(self) -> str:
        """What the file's content is recognised by; the text of the error when it cannot be read."""
        if self._path is None:
            return ""
        try:
            return hashlib.sha256(Path(self._path).read_bytes()).hexdigest()
        except OSError as error:
            return str(error)

    def check(self) -> None:
        """Reload the file if its content has changed since the last look."""
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            settings = read_settings(self._path)
        except SettingsError as error:
            log.error("the new configuration is invalid, the old one stays in force", error=str(error))
            self._on_result(False)
            return
        self._on_result(True)
        if settings == self.current:
            return
        self.current = settings
        log.info("configuration reloaded", file=self._path)
        self._on_change(settings)

    def start(self) -> None:
        """Watch the file in a thread of its own."""
        if self._path is None:
            return
        self._thread = threading.Thread(target=self._watch, name="settings", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.check()
            except Exception:  # a bug must not keep the next change from being seen
                log.exception("the configuration could not be taken over")

    def stop(self) -> None:
        """End the watching thread."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
