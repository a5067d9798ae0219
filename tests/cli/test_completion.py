"""Completing a command line, whichever shell or plugin asks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mirrorstream_cli.completion import FILES, complete, plugin_answer, script
from mirrorstream_cli.main import build_parser, main

PROGRAM = Path(sys.executable).parent / "mirrorstream"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["st"], ["status"]),
        (["status", "-o", ""], ["text", "json", "yaml"]),
        (["missing", "-o", "i"], ["imageset"]),
        (["missing", "--output=j"], ["--output=json"]),
        (["missing", "--output="], ["--output=text", "--output=json", "--output=yaml", "--output=imageset"]),
        (["missing", "-oj"], ["-ojson"]),
        (["status", "-nns", "-oj"], ["-ojson"]),
        (["status", "-Ao"], []),
        (["status", "--all"], ["--all", "--all-contexts", "--all-namespaces"]),
        (["status", "-A", "--all"], ["--all", "--all-contexts"]),
        (["status", "--wait", ""], []),
        (["status", "--wait", "5m", "--ku"], ["--kubeconfig"]),
        (["status", "--kubeconfig", ""], [FILES]),
        (["explain", "--file", "a.yaml", "--fi"], ["--file"]),
        (["explain", "--file", ""], [FILES]),
        (["check", "--file", ""], [FILES]),
        (["check", "-o", "i"], ["imageset"]),
        (["su"], ["suggest"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["completion", "bash", ""], []),
        (["nonsense", ""], []),
        (["retry", ""], []),
        (["controller", "--log-format", "c"], ["console"]),
    ],
)
def test_what_a_word_may_become(words: list[str], found: list[str]) -> None:
    """Subcommands, options that were not given yet, choices, files."""
    assert complete(build_parser(), words) == found


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["status", "-n", "pay"], ("namespace", "pay", {})),
        (["status", "--namespace=pay"], ("namespace", "pay", {})),
        (["status", "-npay"], ("namespace", "pay", {})),
        (["check", "-A", "--from", ""], ("namespace", "", {})),
        (["status", "--kubeconfig", "f", "--context", "a"], ("context", "a", {"kubeconfig": "f"})),
        (["status", "--contexts", "a,"], ("context", "a,", {})),
        (["retry", "-n", "pay", "app:"], ("stream", "app:", {"namespace": "pay"})),
        (["retry", "-npay", "--context=x", ""], ("stream", "", {"namespace": "pay", "context": "x"})),
        (["explain", "pay/"], ("subject", "pay/", {})),
    ],
)
def test_names_are_asked_of_the_cluster(words: list[str], asked: tuple[str, str, dict[str, str]]) -> None:
    """With what the command line says of the cluster and the namespace."""
    seen: list[Any] = []

    def names(kind: str, word: str, given: Mapping[str, str]) -> list[str]:
        seen.append((kind, word, {key: value for key, value in given.items() if value}))
        return []

    assert complete(build_parser(), words, names) == []
    assert seen == [asked]


def test_every_subcommand_is_offered() -> None:
    """And nothing else."""
    assert set(complete(build_parser(), [""])) >= {
        "controller",
        "webhook",
        "explain",
        "status",
        "missing",
        "check",
        "suggest",
        "retry",
        "completion",
    }
    assert complete(build_parser(), []) == complete(build_parser(), [""])


def test_kubectl_gets_a_directive() -> None:
    """4: no files; 0: files where there is nothing else; 2: no space behind a namespace, because a stream follows."""
    assert plugin_answer(["a", "b"]) == "a\nb\n:4\n"
    assert plugin_answer([FILES]) == ":0\n"
    assert plugin_answer(["openshift/", "web/"]) == "openshift/\nweb/\n:6\n"


def test_as_kubectls_completer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Kubectl and oc run `kubectl_complete-mirrorstream` with the words behind the plugin's name."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl_complete-mirrorstream", "status", "-o", "j"])
    assert main() == 0
    assert capsys.readouterr().out == "json\n:4\n"


def _ask(shell: str, text: str, folder: Path) -> list[str]:
    """What a real shell completes `text` to."""
    folder.joinpath("script").write_text(script(shell), encoding="utf-8")
    words = text.split(" ")
    asked = {
        "bash": f"source ./script; COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; _mirrorstream; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": f"compdef() {{ }}; _files() {{ ls -d $words[-1]* }}; compadd() {{ print -l -- ${{(P)2}} }}; source ./script; "
        f"words=({' '.join(repr(w) for w in words)}); CURRENT={len(words)}; _mirrorstream",
        "fish": f"source ./script; complete -C {text!r} | string replace -r '\\t.*' ''",
    }
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        [shell, "-c", asked[shell]], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode in (0, 1), done
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_in_a_real_shell(shell: str, tmp_path: Path) -> None:
    """Where the shell is there."""
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    (tmp_path / "config file.yaml").touch()
    assert _ask(shell, "mirrorstream st", tmp_path) == ["status"]
    assert sorted(_ask(shell, "mirrorstream status -o ", tmp_path)) == ["json", "text", "yaml"]
    assert _ask(shell, "mirrorstream status -oj", tmp_path) == ["-ojson"]
    if shell == "bash":
        # Bash takes '=' and ':' for ends of words, and replaces only what is behind the last one.
        assert _ask(shell, "mirrorstream status --output = j", tmp_path) == ["json"]
        assert sorted(_ask(shell, "mirrorstream status --output =", tmp_path)) == ["json", "text", "yaml"]
        assert _ask(shell, "mirrorstream retry app : v1 --output = y", tmp_path) == ["yaml"]
    else:
        assert _ask(shell, "mirrorstream status --output=j", tmp_path) == ["--output=json"]
    assert [name.replace("\\", "") for name in _ask(shell, "mirrorstream status --kubeconfig conf", tmp_path)] == [
        "config file.yaml"
    ]
