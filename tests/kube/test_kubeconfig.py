"""One kubeconfig for many clusters."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.kubeconfig import Context, Kubeconfig


def write(path: Path, *names: str, current: str = "", **cluster: Any) -> Path:
    """A kubeconfig with a cluster, a user and a context of each name."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        **({"current-context": current} if current else {}),
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.com:6443", **cluster}} for name in names],
        "users": [{"name": name, "user": {"token": f"token-{name}"}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_its_contexts_the_current_one_first(tmp_path: Path) -> None:
    """Of all files, in their order."""
    first = write(tmp_path / "1", "a", "b", current="b")
    second = write(tmp_path / "2", "c")
    found = Kubeconfig(f"{first}:{tmp_path / 'none'}:{second}").contexts()
    assert found == [Context("b", "b", "b"), Context("a", "a", "a"), Context("c", "c", "c")]


def test_it_is_read_once(tmp_path: Path) -> None:
    """Reading it again for each of fifty clusters would take longer than asking them."""
    path = write(tmp_path / "1", "a", "b")
    kubeconfig = Kubeconfig(str(path))
    path.unlink()
    found = [kubeconfig.load(name) for name in ("a", "b")]
    assert [config.host for config in found] == ["https://a.example.com:6443", "https://b.example.com:6443"]
    assert [config.authorization() for config in found] == ["Bearer token-a", "Bearer token-b"]


def test_names_of_files_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    """Also in the second of several files."""
    first = write(tmp_path / "1" / "config", "a")
    second = write(tmp_path / "2" / "config", "b", **{"certificate-authority": "ca.crt"})
    (tmp_path / "2" / "ca.crt").write_text("x", encoding="utf-8")
    kubeconfig = Kubeconfig(f"{first}:{second}")
    assert kubeconfig.load("b").ca_file == str(tmp_path / "2" / "ca.crt")
    assert kubeconfig.load("a").ca_file is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("contexts: 3\n", "contexts: expected a list of mappings", id="no-list"),
        pytest.param("contexts: [{name: x}]\nclusters: []\n", "", id="no-cluster"),
        pytest.param("contexts: [{context: {}}]\n", "to have 'name' key", id="no-name"),
        pytest.param("[]\n", "expected a mapping at the top", id="no-mapping"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    """Whether it is found when the file is read or when a context is used."""
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as found:
        Kubeconfig(str(path)).load("x")
    assert str(found.value).startswith(f"kubeconfig {path}: ")
    assert says in str(found.value)
    assert "\n" not in str(found.value)
