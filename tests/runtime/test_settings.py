"""The configuration file: every mistake gets one line that names the file and the field; a good file stays in force."""

from pathlib import Path

import pytest
from mirrorstream.runtime.settings import (
    NamespaceSettings,
    Settings,
    SettingsError,
    SettingsFile,
    parse_settings,
    read_settings,
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("controller: {retryy: {}}", "f.yaml: controller.retryy: unknown field", id="unknown-field"),
        pytest.param("mode: passive", "f.yaml: mode: input should be 'active' or 'observe', found 'passive'", id="choice"),
        pytest.param("mirrors: {bypassNotFound: 1}", "f.yaml: mirrors.bypassNotFound: input should be", id="wrong-type"),
        pytest.param("controller: {concurrentImports: 0}", "f.yaml: controller.concurrentImports: input should be", id="range"),
        pytest.param("controller: {stuckAfterSeconds: '5'}", "f.yaml: controller.stuckAfterSeconds: input", id="text-number"),
        pytest.param(
            "controller: {retry: {initialSeconds: 9, maximumSeconds: 3}}",
            "f.yaml: controller.retry: maximumSeconds must not be smaller than initialSeconds",
            id="order",
        ),
        pytest.param("controller: {namespaces: {include: team}}", "f.yaml: controller.namespaces.include:", id="not-a-list"),
        pytest.param("a: [", "f.yaml, line 1, column 5: not valid YAML", id="broken-yaml"),
        pytest.param("- mode", "f.yaml: expected a mapping at the top, found list", id="not-a-mapping"),
        pytest.param("webhook: {serveFrom: digest}", "f.yaml: webhook.serveFrom: expected a list, found 'digest'", id="no-list"),
        pytest.param("mirrors: []", "f.yaml: mirrors: expected a mapping, found []", id="no-section"),
        pytest.param("extra:", "f.yaml: extra: unknown field", id="unknown-field-without-a-value"),
        pytest.param("controller: {stuckAfterSeconds: .inf}", "controller.stuckAfterSeconds: input should be", id="infinite"),
        pytest.param("controller: {replaceAfterSeconds: 9999999999}", "replaceAfterSeconds: input should be", id="far-off"),
        pytest.param(
            "mirrors: {bypassDenied: false}\nmode: active\nmirrors: {bypassNotFound: true}",
            "f.yaml, line 3, column 1: not valid YAML: 'mirrors' is given twice",
            id="a-section-twice",
        ),
        pytest.param('{"mode": "active", "mode": "observe"}', "'mode' is given twice", id="a-field-twice-in-json"),
        pytest.param("<<: {mode: observe}\n<<: {mode: active}", "'<<' is given twice", id="a-merge-twice"),
        pytest.param("mode: x\nextra: 1", "mode: input should be 'active' or 'observe', found 'x'; extra: unknown", id="both"),
    ],
)
def test_a_mistake_names_the_file_and_the_field(text: str, says: str) -> None:
    """The error for a mistyped field names the field."""
    with pytest.raises(SettingsError) as error:
        parse_settings(text, "f.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "# nothing\n",
        "controller:\n  namespaces: {include: [], exclude: []}",
        "mirrors:\n  # bypassDenied: false\ncontroller:\n  retry:\n    # initialSeconds: 9\nwebhook:\n",
        "{mode: null, mirrors: {bypassDenied: null}, controller: {namespaces: {include: null}}, webhook: {sharedNamespaces: ~}}",
    ],
)
def test_what_is_not_said_has_its_documented_default(text: str) -> None:
    """An empty file is a valid one."""
    settings = parse_settings(text, "f.yaml")
    assert settings == Settings()
    assert settings.controller.stuckAfterSeconds == 180
    assert settings.webhook.sharedNamespaces == ("openshift",)


def test_the_documented_example_is_valid() -> None:
    """Every field of the documentation exists, with its default."""
    example = """
    mode: active
    mirrors: {tagsThroughDigestMirrors: true, bypassNotFound: false}
    controller:
      recordedReference: auto
      concurrentImports: 16
      stuckAfterSeconds: 180
      replaceAfterSeconds: 3600
      apiRequestsPerSecond: 200
      retry: {initialSeconds: 5, maximumSeconds: 300}
      namespaces: {include: [], exclude: []}
    webhook:
      sharedNamespaces: [openshift]
      checkAccess: true
      respectImagePolicies: true
      scope: mirrored
      serveFrom: [registry, digest]
      pendingTags: rewrite
      pendingPods: repair
      excludeOwners: []
    """
    assert parse_settings(example, "f.yaml") == Settings()


@pytest.mark.parametrize(
    ("include", "exclude", "namespace", "covered"),
    [
        ((), (), "any", True),
        (("team-*",), (), "team-a", True),
        (("team-*",), (), "other", False),
        ((), ("kube-*",), "kube-system", False),
        (("team-*",), ("team-b",), "team-b", False),
    ],
)
def test_namespaces_are_globs_and_exclusion_wins(
    include: tuple[str, ...], exclude: tuple[str, ...], namespace: str, covered: bool
) -> None:
    """An empty include means all."""
    assert NamespaceSettings(include=include, exclude=exclude).cover(namespace) is covered


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A wrong path is an error, never the defaults."""
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read"):
        read_settings(str(tmp_path / "nowhere.yaml"))


def test_a_broken_new_file_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    """Nobody loses a running controller to a typo; the next good file is taken."""
    path = tmp_path / "config.yaml"
    path.write_text("mode: observe")
    changes: list[Settings] = []
    results: list[bool] = []
    file = SettingsFile(str(path))
    file.subscribe(changes.append, results.append)
    path.write_text("mode: [")
    file.check()
    assert (file.current.mode, changes, results) == ("observe", [], [False])
    file.check()
    assert results == [False], "the same broken file is reported once"
    path.write_text("mode: active")
    file.check()
    assert (file.current.mode, [c.mode for c in changes], results) == ("active", ["active"], [False, True])


def test_a_file_that_vanishes_and_returns_changes_nothing(tmp_path: Path) -> None:
    """A mounted ConfigMap is swapped by links: for a moment there may be no file."""
    path = tmp_path / "config.yaml"
    path.write_text("mode: observe")
    results: list[bool] = []
    file = SettingsFile(str(path))
    file.subscribe(lambda settings: None, results.append)
    path.unlink()
    file.check()
    path.write_text("mode: observe")
    file.check()
    assert file.current.mode == "observe"
    assert results == [False, True]
