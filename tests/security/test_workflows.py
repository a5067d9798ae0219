"""The workflows: actions are pinned by commit, jobs get few permissions, what they run exists, and `make lint` sees to it."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.lint import workflows as lint
from e2e.testbed.support.gobuild import BuildError
from tests.packaging.containerfile import ROOT

Object = dict[str, Any]
GITHUB = ROOT / ".github"
PATHS = sorted((GITHUB / "workflows").glob("*.yml"))
FILES = [pytest.param(path, id=path.stem) for path in PATHS]
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
MAY_WRITE = {
    ("docs", "deploy"): {"pages", "id-token"},
    ("release", "publish"): {"contents", "id-token", "attestations"},
    ("security", "scorecard"): {"security-events", "id-token"},
}
"""The jobs that may change anything, and what."""


def load(path: Path) -> Object:
    """One YAML document; `on` is read as a word."""
    document: Object = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506  the project's own file
    return document


def runs(workflow: Object) -> list[str]:
    """Every script of a workflow."""
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_there_is_one_for_each_purpose() -> None:
    """Tests on every push, the site, security every week, a release of a tag."""
    triggers = {path.stem: load(path)["on"] for path in PATHS}
    assert triggers.keys() == {"docs", "release", "security", "test"}
    assert triggers["test"] == {"push": "", "pull_request": ""}
    assert triggers["release"] == {"push": {"tags": ["v*"]}}
    assert triggers["security"].keys() == {"push", "schedule"}
    assert {"make lint", "make test", "make e2e"} <= set(runs(load(GITHUB / "workflows" / "test.yml")))


@pytest.mark.parametrize("path", FILES)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved by whoever takes an action over; its version is a comment, which Dependabot keeps current."""
    uses = [line.strip().removeprefix("- ") for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not PINNED.fullmatch(line)] == []


def test_one_action_has_one_version() -> None:
    """The same in all workflows."""
    found = {line.strip().removeprefix("- ") for path in PATHS for line in path.read_text(encoding="utf-8").splitlines()}
    uses = sorted(line.partition("uses: ")[2] for line in found if line.startswith("uses:"))
    assert len({line.partition("@")[0] for line in uses}) == len(uses), uses


@pytest.mark.parametrize("path", FILES)
def test_jobs_have_few_permissions(path: Path) -> None:
    """None by default; each that is given says why; only those of the table may write; no checkout leaves a token behind."""
    workflow = load(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        writes = {scope for scope, access in job["permissions"].items() if access == "write"}
        assert writes == MAY_WRITE.get((path.stem, name), set()), name
        assert int(job["timeout-minutes"]) <= 90
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] == "false"
    for line in re.findall(r"^ +[a-z-]+: (?:read|write)\b.*$", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(r" # \w+ \w+", line), line


@pytest.mark.parametrize("path", FILES)
def test_what_is_run_exists(path: Path) -> None:
    """Targets of make, and files of the project."""
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    named = {name for script in runs(load(path)) for name in re.findall(r"^make (?:-C \S+ )?([a-z0-9]+)", script, re.MULTILINE)}
    assert named
    assert named <= targets
    for file in re.findall(r"-(?:file|path): (\S+/\S+)", text):
        assert (ROOT / file).is_file(), file


def test_a_release_is_signed_and_what_was_built() -> None:
    """The image and the sums, without a key; the image as it was built; nothing is published before somebody looked at it."""
    job = load(GITHUB / "workflows" / "release.yml")["jobs"]["publish"]
    script = "\n".join(runs({"jobs": {"publish": job}}))
    for part in (
        "--preserve-digests",
        'cosign sign --yes "$IMAGE@$DIGEST"',
        "cosign sign-blob --yes --bundle SHA256SUMS.sigstore.json dist/SHA256SUMS",
        "--draft",
    ):
        assert part in script, part
    assert job["environment"] == "release"
    assert sum(step.get("uses", "").startswith("actions/attest@") for step in job["steps"]) == 2
    page = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    secrets = set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(job)))
    assert secrets
    assert all(f"`{name}`" in page for name in secrets)


@pytest.mark.parametrize(("change", "status"), [("", 0), ("x", 1)])
def test_what_was_not_built_is_not_published(change: str, status: int, tmp_path: Path) -> None:
    """The archive that arrives is checked against its sums before anything is signed."""
    steps = load(GITHUB / "workflows" / "release.yml")["jobs"]["publish"]["steps"]
    (script,) = [step["run"] for step in steps if step.get("name") == "What was built has arrived"]
    content = b"a wheel"
    with tarfile.open(tmp_path / "mirrorstream-1.2.3-dist.tar", "w") as archive:
        for name, data in (
            ("bundle/a.whl", content + change.encode()),
            ("SHA256SUMS", f"{hashlib.sha256(content).hexdigest()}  bundle/a.whl\n".encode()),
        ):
            entry = tarfile.TarInfo(f"dist/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    environment = {**os.environ, "TAG": "v1.2.3"}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == status


def test_lint_checks_the_workflows() -> None:
    """`make lint` runs it, and finds nothing."""
    assert "\t$(VENV)/bin/python -m config.lint.workflows\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert lint.check()


BROKEN = {
    "actionlint": "on: push\npermissions: {}\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps: [{run: true, with: {}}]\n",
    "zizmor": "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps: [{uses: actions/checkout@v4}]\n",
}


@pytest.mark.parametrize("tool", BROKEN)
def test_lint_fails_for_a_workflow_that_is_wrong(tool: str, tmp_path: Path) -> None:
    """Each tool finds what is its own to find: a step that is none, an action that is not pinned."""
    try:
        (lint.actionlint if tool == "actionlint" else lint.zizmor)()
    except BuildError as error:
        pytest.skip(str(error))
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_text(BROKEN[tool], encoding="utf-8")
    assert not lint.check(tmp_path)


def test_lint_says_what_it_could_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Go and zizmor, or without the network before the first time, it is a line and not a failure."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert lint.check()
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [
        "the workflows are not checked with actionlint",
        "the workflows are not checked with zizmor",
    ]


FORMS = [pytest.param(path, id=path.stem) for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]


@pytest.mark.parametrize("path", FORMS)
def test_forms_of_issues_are_valid(path: Path) -> None:
    """As GitHub's syntax for issue forms has them: what it cannot read, it does not show."""
    form = load(path)
    assert form.keys() <= {"name", "description", "labels", "body", "title", "assignees"}
    assert all(form[key] for key in ("name", "description", "body"))
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in fields]
    assert len(set(names)) == len(names)
    for part in fields:
        assert part["type"] in {"input", "textarea"}
        assert part["attributes"]["label"]
        assert part.get("validations", {"required": "true"}) == {"required": "true"}


def test_vulnerabilities_are_not_reported_as_issues() -> None:
    """The chooser leads to the private form, as SECURITY.md does."""
    config = load(GITHUB / "ISSUE_TEMPLATE" / "config.yml")
    assert config["blank_issues_enabled"] == "false"
    assert "https://github.com/mirrorstream/mirrorstream/security/advisories/new" in {
        link["url"] for link in config["contact_links"]
    }


URL = re.compile(r"https://\S+")
DATE = re.compile(r"20\d\d-\d\d-\d\d")
REQUIRED = {
    "header": {"last-reviewed", "last-updated", "schema-version", "url"},
    "project": {"name", "administrators", "repositories", "vulnerability-reporting"},
    "repository": {
        "status",
        "url",
        "accepts-change-request",
        "accepts-automated-change-request",
        "core-team",
        "license",
        "security",
    },
}
OPTIONAL = {
    "header": {"comment", "project-si-source"},
    "project": {"homepage", "roadmap", "funding", "documentation"},
    "repository": {"bug-fixes-only", "no-third-party-packages", "documentation", "release"},
}


def test_security_insights_are_valid_and_true() -> None:
    """Against version 2.0.0 of the specification: its fields, types and words. What it says of the project is so."""
    document = yaml.safe_load((ROOT / "SECURITY-INSIGHTS.yml").read_text(encoding="utf-8"))
    assert document.keys() == REQUIRED.keys()
    for part, required in REQUIRED.items():
        assert required <= document[part].keys() <= required | OPTIONAL[part], part
    header, project, repository = document["header"], document["project"], document["repository"]
    assert header["schema-version"] == "2.0.0"
    assert DATE.fullmatch(header["last-updated"])
    assert DATE.fullmatch(header["last-reviewed"])
    assert isinstance(project["vulnerability-reporting"]["reports-accepted"], bool)
    assert repository["status"] == "active"
    assert all(person.keys() >= {"name", "primary"} for person in project["administrators"] + repository["core-team"])
    assert all(entry.keys() == {"name", "url", "comment"} for entry in project["repositories"])
    assert repository["license"]["expression"] == "Apache-2.0"
    assert repository["security"]["assessments"]["self"]["comment"]
    for tool in repository["security"]["tools"]:
        assert tool["type"] in {"fuzzing", "container", "secret", "SCA", "SAST", "other"}
        assert tool["integration"].keys() == {"adhoc", "ci", "release"}
        assert tool.keys() >= {"name", "rulesets", "results"}
    for link in _links(document):
        assert URL.fullmatch(link), link
        inside = re.match(r"https://github\.com/mirrorstream/mirrorstream/blob/main/([^#]+)", link)
        assert not inside or (ROOT / inside[1]).is_file(), link
        page = re.match(r"https://mirrorstream\.github\.io/mirrorstream/([\w-]+)/", link)
        assert not page or (ROOT / "docs" / f"{page[1]}.md").is_file(), link


def _links(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [link for item in value.values() for link in _links(item)]
    if isinstance(value, list):
        return [link for item in value for link in _links(item)]
    return [value] if isinstance(value, str) and "://" in value else []
