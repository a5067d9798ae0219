"""Kubeconfigs that are read without the kubernetes package: as that package reads them, or not at all."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube import kubeconfig
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.static_kubeconfig import static_context

DATA = base64.b64encode(b"some PEM").decode()


def write(path: Path, cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> Path:
    """A kubeconfig with one context."""
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example.com:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **more}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        pytest.param({}, {"token": "secret"}, id="token"),
        pytest.param({"certificate-authority": "ca.crt"}, {"client-certificate": "a.crt", "client-key": "a.key"}, id="files"),
        pytest.param({"certificate-authority-data": DATA}, {"client-certificate-data": DATA, "client-key-data": DATA}, id="data"),
        pytest.param(
            {"certificate-authority-data": DATA, "certificate-authority": "ca.crt"}, {"token": "secret"}, id="data-counts-more"
        ),
        pytest.param({"certificate-authority-data": "\n".join(DATA)}, {"token": "secret"}, id="data-in-lines"),
        pytest.param({"insecure-skip-tls-verify": True, "tls-server-name": "api"}, {}, id="nobody-unverified"),
        pytest.param({"proxy-url": "http://proxy.example.com:3128"}, {"token": "secret"}, id="proxy"),
    ],
)
def test_it_is_read_as_the_kubernetes_package_does(cluster: dict[str, Any], user: dict[str, Any], tmp_path: Path) -> None:
    """The same server, and the same credentials."""
    for name in ("ca.crt", "a.crt", "a.key"):
        (tmp_path / name).write_text(name)
    path = write(tmp_path / "config", cluster, user, namespace="team")
    known = static_context(str(path), None)
    assert known
    found, expected = known.load(), kubeconfig.load(str(path), None)
    assert known.namespace == "team"
    for name in ("host", "server_name", "insecure", "proxy"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.authorization() == expected.authorization()
    for name in ("ca_file", "cert_file", "key_file"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours and Path(ours).read_bytes()) == (theirs and Path(theirs).read_bytes()), name


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        pytest.param({}, {"exec": {"command": "login"}}, id="plugin"),
        pytest.param({}, {"auth-provider": {"name": "oidc"}}, id="provider"),
        pytest.param({}, {"username": "me", "password": "secret"}, id="password"),
        pytest.param({}, {"tokenFile": "token"}, id="file-of-a-token"),
        pytest.param({}, {"token": "secret", "as": "other"}, id="impersonation"),
        pytest.param({"server": ""}, {}, id="no-server"),
    ],
)
def test_what_is_of_another_form_is_left_to_the_package(cluster: dict[str, Any], user: dict[str, Any], tmp_path: Path) -> None:
    """And so are files that cannot be read, and contexts that are not there."""
    path = write(tmp_path / "config", cluster, user)
    assert static_context(str(path), None) is None
    assert static_context(str(write(path, {}, {})), "other") is None
    assert static_context(str(tmp_path / "none"), None) is None
    for text in ("[", "clusters: 3", "contexts: [{name: x, context: []}]\ncurrent-context: x"):
        path.write_text(text)
        assert static_context(str(path), None) is None


def test_a_context_without_a_user_sends_no_token(tmp_path: Path) -> None:
    """Nor does an entry without a name stand for one that nobody names."""
    path = write(tmp_path / "config", {}, {"token": "secret"})
    document = yaml.safe_load(path.read_text())
    del document["users"][0]["name"], document["contexts"][0]["context"]["user"]
    path.write_text(yaml.safe_dump(document))
    assert static_context(str(path), None) is None


def test_files_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    """The first of a name counts; paths are relative to their file, and a file that is not there counts for nothing."""
    (tmp_path / "sub").mkdir()
    first = write(tmp_path / "sub" / "first", {"certificate-authority": "ca.crt"}, {"token": "first"})
    second = write(tmp_path / "second", {"server": "https://other.example.com"}, {"token": "second"})
    known = static_context(os.pathsep.join([str(tmp_path / "none"), str(first), str(second)]), "x")
    assert known
    found = known.load()
    assert (found.host, found.authorization()) == ("https://api.example.com:6443", "Bearer first")
    assert found.ca_file == str(tmp_path / "sub" / "ca.crt")
    assert known.namespace == "default"


def test_data_that_is_none_is_an_error(tmp_path: Path) -> None:
    """Which names the field."""
    known = static_context(str(write(tmp_path / "config", {"certificate-authority-data": "%"}, {})), None)
    assert known
    with pytest.raises(ConfigurationError, match="certificate-authority-data: not base64"):
        known.load()
