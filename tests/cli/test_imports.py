"""What a process imports: next to nothing for what a shell runs at each completion, and nothing slow for what a pod runs.

Imports are most of the CPU time of a start. What is imported is the same at every run; how many seconds it takes is not.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from mirrorstream_cli.main import main

from e2e.testbed.programs.pod_credentials import write_credentials
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.ports import free_port

COMMAND = """
import sys
before = set(sys.modules)
from mirrorstream_cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code, error
print("\\n" + " ".join(set(sys.modules) - before))
"""

POD = """
import os, signal, sys, threading, time, urllib3
from pathlib import Path
from mirrorstream.kube import service_account
from mirrorstream_cli.main import main

def tell():
    for _ in range(1000):
        try:
            if urllib3.request("GET", f"http://127.0.0.1:{sys.argv[1]}/readyz", retries=False).status == 200:
                print(" ".join(sys.modules), flush=True)
                break
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

service_account.FOLDER = Path(os.environ["SERVICE_ACCOUNT_FOLDER"])
threading.Thread(target=tell, daemon=True).start()
main([*sys.argv[2:], "--metrics-port", sys.argv[1]])
"""

MIRRORS = """
kind: ImageDigestMirrorSet
metadata: {name: mirrors}
spec: {imageDigestMirrors: [{source: registry.example.com, mirrors: [mirror.example.com]}]}
---
kind: ImageStream
metadata: {name: app, namespace: team}
spec: {tags: [{name: v1, from: {kind: DockerImage, name: "registry.example.com/app:v1"}}]}
"""


KUBECONFIG = """
clusters: [{{name: c, cluster: {{server: "{url}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


PATIENT = "from mirrorstream_cli import cluster_names; cluster_names.SECONDS = 60.0\n"
"""A busy machine may take longer than a shell waits."""


def imported(*arguments: str, first: str = "") -> set[str]:
    """The modules that `mirrorstream ARGUMENTS` imports, after the statements of `first`."""
    command = [sys.executable, "-c", first + COMMAND, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def packages(modules: set[str]) -> set[str]:
    """The packages of modules, but for Python's own and what Cython makes."""
    found = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    return {name for name in found if not name.startswith("_") and name != "cython_runtime"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--help",), id="help"),
        pytest.param(("status", "--help"), id="help-of-a-subcommand"),
        pytest.param(("check", "--help"), id="help-of-check"),
        pytest.param(("suggest", "--help"), id="help-of-suggest"),
        pytest.param(("completion", "bash"), id="completion"),
        pytest.param(("__complete", "status", "-"), id="complete"),
        pytest.param(("__complete", "ex"), id="complete-a-subcommand"),
    ],
)
def test_a_shell_waits_for_no_import(arguments: tuple[str, ...]) -> None:
    """Only our own modules, and of Python's not the one that reads the version."""
    modules = imported(*arguments)
    assert packages(modules) == {"mirrorstream", "mirrorstream_cli"}
    assert not modules & {"importlib.metadata", "pathlib", "datetime", "json"}
    assert {module for module in modules if module.startswith("mirrorstream.")} <= {
        "mirrorstream.kube", "mirrorstream.kube.errors", "mirrorstream.text", "mirrorstream.text.sanitize",
    }  # fmt: skip


def test_contexts_are_completed_without_a_client() -> None:
    """The package that reads credentials takes long to import; a file is enough."""
    assert packages(imported("__complete", "status", "--context", "x")) == {"mirrorstream", "mirrorstream_cli", "yaml"}


def test_names_of_a_cluster_are_completed_without_the_kubernetes_package(tmp_path: Path) -> None:
    """Where kubernetes-validate is installed, importing it takes longer than a shell waits."""
    with Simulator() as simulator:
        path = tmp_path / "kubeconfig"
        path.write_text(KUBECONFIG.format(url=simulator.url))
        for words in (("-n", "x"), ("-n", "ns", "app:")):
            asked = len(simulator.server.requests)
            modules = imported("__complete", "retry", "--kubeconfig", str(path), *words, first=PATIENT)
            assert "urllib3" in modules
            assert not packages(modules) & {"kubernetes", "kubernetes_validate", "requests", "jsonschema", "structlog", "rich"}
            assert not {module for module in modules if module.startswith("mirrorstream.diagnose")}
            assert len(simulator.server.requests) > asked


def test_the_version_needs_no_package(capsys: pytest.CaptureFixture[str]) -> None:
    """It is in the name of the installation's metadata, and printed on stdout."""
    modules = imported("--version")
    assert packages(modules) == {"mirrorstream", "mirrorstream_cli"}
    assert not modules & {"importlib.metadata", "email.message", "zipfile", "pathlib"}
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code in (None, 0)
    assert capsys.readouterr() == (f"mirrorstream {version('mirrorstream')}\n", "")


@pytest.mark.parametrize("subject", ["registry.example.com/app:v1", "team/app"])
def test_files_are_explained_without_a_client(subject: str, tmp_path: Path) -> None:
    """Neither what talks to clusters nor what reads the configuration: YAML, and typed objects."""
    modules = imported("explain", subject, "--file", str(_mirrors(tmp_path)))
    assert packages(modules) - {"typing_extensions"} == {"mirrorstream", "mirrorstream_cli", "msgspec", "yaml"}


def test_a_reference_is_explained_from_files_with_the_rules_alone(tmp_path: Path) -> None:
    """Without what knows streams, their failures and `status`, other forms of output, and Python's modules that take long."""
    modules = imported("explain", "registry.example.com/app:v1", "--file", str(_mirrors(tmp_path)))
    assert {module for module in modules if module.startswith("mirrorstream.diagnose.")} == {"mirrorstream.diagnose.explain"}
    assert not {module for module in modules if module.startswith("mirrorstream.imagestream")}
    assert "mirrorstream_cli.yaml_output" not in modules
    assert not modules & {"json", "pathlib", "urllib.parse", "threading", "unicodedata", "logging"}


def _mirrors(folder: Path) -> Path:
    path = folder / "mirrors.yaml"
    path.write_text(MIRRORS)
    return path


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        pytest.param(("controller", "--no-leader-election"), {"flask", "httptools"}, id="controller"),
        pytest.param(("webhook", "--insecure", "--port", "0"), set(), id="webhook"),
    ],
)
def test_a_pod_reads_its_credentials_without_the_kubernetes_package(
    arguments: tuple[str, ...], unwanted: set[str], tmp_path: Path
) -> None:
    """Up to its readiness, with the files of its service account."""
    authority = Authority(tmp_path / "cluster", "cluster")
    command = [sys.executable, "-c", POD, str(free_port()), *arguments]
    with Simulator(authority=authority) as simulator:
        variables = write_credentials(tmp_path / "pod", simulator.client("test"), authority.certificate)
        ran = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    found = packages(set(ran.stdout.split()))
    assert found >= {"mirrorstream", "urllib3"}
    assert not found & ({"kubernetes", "kubernetes_validate", "requests", "jsonschema"} | unwanted)
