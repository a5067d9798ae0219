"""What is in the image, and that it runs there: by anybody, without a file that can be written, without a shell."""

import http.client
import json
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from tests.packaging.conftest import Image
from tests.packaging.containerfile import ROOT

MIRRORS = """\
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: redhat}
spec:
  imageDigestMirrors:
    - source: registry.redhat.io
      mirrors: [mirror.example.com:5000/redhat]
"""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A cluster."""
    with Simulator(Settings()) as running:
        yield running


def run(image: Image, confined: list[str], program: str, *arguments: str) -> str:
    """What a program prints, run as it would be in a container."""
    done = subprocess.run(
        [*confined, program, *arguments], capture_output=True, text=True, check=False, env=image.variables(), cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("program", "says"), [("mirrorstream", "mirrorstream"), ("kubectl-mirrorstream", "kubectl mirrorstream")])
def test_both_programs_tell_their_version(image: Image, confined: list[str], program: str, says: str) -> None:
    """That of the label."""
    version = image.containerfile.stages[-1].pairs("ARG")["VERSION"]
    assert run(image, confined, str(image.environment / "bin" / program), "--version") == f"{says} {version}\n"


def test_what_the_container_runs_by_default_is_help(image: Image, confined: list[str]) -> None:
    """ENTRYPOINT and CMD together."""
    (command,) = image.containerfile.stages[-1].all("CMD")
    assert "controller" in run(image, confined, image.entrypoint, *json.loads(command.text))


def test_explain_answers_offline(image: Image, confined: list[str], tmp_path: Path) -> None:
    """From a file."""
    objects = tmp_path / "mirrors.yaml"
    objects.write_text(MIRRORS, encoding="utf-8")
    answer = run(image, confined, image.entrypoint, "explain", "registry.redhat.io/ubi9/httpd-24:latest", "--file", str(objects))
    assert "mirror.example.com:5000/redhat/ubi9/httpd-24:latest" in answer


def test_the_controller_becomes_ready(image: Image, confined: list[str], simulator: Simulator, tmp_path: Path) -> None:
    """And ends with 0."""
    _becomes_ready(image, confined, simulator, tmp_path, "controller", "--namespace", "mirrorstream")


def test_the_webhook_becomes_ready(image: Image, confined: list[str], simulator: Simulator, tmp_path: Path) -> None:
    """The server under it needs no file of its own either. SIGINT does not wait for clients to leave."""
    pair = Authority(tmp_path / "pki", "authority").issue("webhook", hosts=("localhost",))
    port, files = str(free_port()), ("--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key))
    _becomes_ready(image, confined, simulator, tmp_path, "webhook", "--port", port, *files, end=signal.SIGINT)


def _becomes_ready(
    image: Image, confined: list[str], simulator: Simulator, folder: Path, *arguments: str, end: signal.Signals = signal.SIGTERM
) -> None:
    kubeconfig, port = write_kubeconfig(folder / "kubeconfig", simulator.url), free_port()
    always = ("--kubeconfig", str(kubeconfig), "--metrics-port", str(port), "--log-format", "json")
    # Only the variables that a container has.
    only = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in image.variables().items())]
    command = [*confined, *only, image.entrypoint, *arguments, *always]
    process = Process(arguments[0], command, folder / "log", folder=Path("/"))
    try:
        process.wait_until("it is ready", lambda: _get(port, "/readyz") == 200)
        process.send(end)
        assert process.wait(60) == 0, process.log()
        assert "Traceback" not in process.log()
    finally:
        process.kill()


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_bytecode_is_there_and_does_not_depend_on_times(image: Image) -> None:
    """Every module is compiled, to be taken unchecked: a start compiles nothing, also when a build sets all files' times."""
    library = next((image.environment / "lib").iterdir()) / "site-packages"
    modules = [path for path in library.rglob("*.py") if path.parent.name != "__pycache__"]
    assert len(modules) > 1000
    missing, checked = [], []
    for module in modules:
        compiled = list((module.parent / "__pycache__").glob(f"{module.stem}.cpython-*.pyc"))
        if not compiled:
            missing.append(module)
        elif compiled[0].read_bytes()[4:8] != b"\x01\0\0\0":  # PEP 552: by hash, and not looked at again
            checked.append(module)
    assert (missing, checked) == ([], [])


def test_it_holds_the_locked_packages_and_mirrorstream(image: Image) -> None:
    """No pip, no build tools."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    done = subprocess.run(
        [image.environment / "bin" / "python", "-Ic", code], capture_output=True, text=True, check=True, timeout=300
    )
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(done.stdout).items()}
    locked = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert found == {**dict(locked), "mirrorstream": image.containerfile.stages[-1].pairs("ARG")["VERSION"]}


def test_everybody_may_read_it_and_nobody_but_its_owner_change_it(image: Image) -> None:
    """OpenShift's users are in group 0, which is the owner's."""
    assert not [str(path) for path in image.environment.rglob("*") if not path.is_symlink() and not _fits(path)]


def _fits(path: Path) -> bool:
    mode = path.stat().st_mode
    needed = stat.S_IROTH | (
        stat.S_IXOTH if path.is_dir() or (path.read_bytes().startswith(b"#!") and path.parent.name == "bin") else 0
    )
    return mode & needed == needed and not mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID)


def test_scripts_name_the_environments_interpreter(image: Image) -> None:
    """Without a shell between."""
    for name in ("mirrorstream", "kubectl-mirrorstream"):
        first = (image.environment / "bin" / name).read_text(encoding="utf-8").splitlines()[0]
        assert re.fullmatch(rf"#!{re.escape(str(image.environment))}/bin/python[\d.]*", first)


def test_nothing_refers_to_where_it_was_built(image: Image) -> None:
    """The stage that built it is gone."""
    build = str(image.places["/build"]).encode()
    texts = [
        path for path in image.environment.rglob("*") if path.suffix in ("", ".json", ".pth", ".cfg", ".txt") and path.is_file()
    ]
    assert not [str(path) for path in texts if build in path.read_bytes()]


def test_the_page_about_fips_says_what_is_in_the_wheels(image: Image) -> None:
    """Which libraries do the cryptography, by version: a changed lock needs another look."""
    page = (ROOT / "docs" / "image.md").read_text(encoding="utf-8")
    (bindings,) = image.environment.rglob("cryptography/hazmat/bindings/_rust.abi3.so")
    (version,) = set(re.findall(r"OpenSSL (\d+\.\d+\.\d+)", page))
    assert f"OpenSSL {version} ".encode() in bindings.read_bytes()
    assert b"libcrypto.so" not in bindings.read_bytes()
    locked = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"the {len(locked)} packages" in page
    for name, number in re.findall(r"(httptools|msgspec|cryptography|PyYAML|MarkupSafe) (\d[\d.]*\d)", page):
        assert (name.lower(), number) in locked, "look again which architectures have wheels"
