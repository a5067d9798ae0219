"""`mirrorstream certs`: files that a TLS server and an API server can use."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
from mirrorstream.runtime.certs import read_pair
from mirrorstream_cli.main import main

ARGUMENTS = ["--service", "mirrorstream-webhook", "--namespace", "mirrorstream"]


def make(folder: Path, *more: str) -> int:
    """Run the command."""
    return main(["certs", "--out", str(folder), *ARGUMENTS, *more])


def test_a_client_that_trusts_the_authority_connects_by_the_services_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three files of the layout that service-ca and cert-manager have; the key is for nobody else to read."""
    folder = tmp_path / "new" / "folder"
    assert make(folder, "--days", "30") == 0
    assert f"{folder}: tls.crt and tls.key for https://mirrorstream-webhook.mirrorstream.svc" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
    read_pair(str(folder / "tls.crt"), str(folder / "tls.key"))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    near, far = socket.socketpair()
    thread = threading.Thread(target=lambda: serving.wrap_socket(far, server_side=True).close())
    thread.start()
    trusting = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    with trusting.wrap_socket(near, server_hostname="mirrorstream-webhook.mirrorstream.svc") as connection:
        assert connection.version() == "TLSv1.3"
    thread.join()


def test_the_longest_name_that_a_service_may_have(tmp_path: Path) -> None:
    """Is longer than a certificate's common name."""
    name = "s" * 63
    assert main(["certs", "--out", str(tmp_path), "--service", name, "--namespace", "n" * 63]) == 0
    read_pair(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))


def test_running_it_again_makes_a_new_pair_of_a_new_authority(tmp_path: Path) -> None:
    """Nothing is kept from which the old one could be made."""
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make(tmp_path)
    assert all(before[path.name] != path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--service", "Web_Hook"], "argument --service: 'Web_Hook' is no name"),
        (["--namespace", "a" * 64], "argument --namespace: 'aaa"),
        (["--days", "0"], "argument --days: '0' is not a number of days between 1 and 3650"),
    ],
    ids=["service", "namespace", "days"],
)
def test_wrong_usage_names_the_flag(arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, as argparse has it."""
    with pytest.raises(SystemExit) as caught:
        make(tmp_path, *arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 1."""
    (tmp_path / "file").touch()
    assert make(tmp_path / "file") == 1
    assert capsys.readouterr().err.startswith(f"mirrorstream: --out {tmp_path / 'file'}: ")
