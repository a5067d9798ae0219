"""What the documents tell people to type can be typed: every block is run by a test, or says why not."""

import argparse
import re
from pathlib import Path

import pytest
from mirrorstream_cli.main import build_parser

from e2e.testbed.documents import CONSOLE, PROJECT, Block, DocumentError, blocks, not_shown, pages, programs, title

RUNNABLE = {"oc", "kubectl", "mirrorstream", "mkdir", "base64", "grep", "openssl", "source", "tail"}
RUNNABLE |= {"skopeo", "sha256sum", "sed", "install", "ln", "cd", "cp", "python3"}
"""What is there where e2e/scenarios/node/test_documents.py runs the commands; oc is kubectl there."""
OC_ONLY = {"adm", "import-image", "tag", "policy", "new-project", "image"}
PAGES = [pytest.param(page, id=title(page)) for page in pages()]
SESSIONS = [pytest.param(block, id=str(block)) for page in pages() for block in blocks(page) if block.language == CONSOLE]
OURS = ("mirrorstream", "kubectl-mirrorstream")


def _ours(words: list[str]) -> list[str] | None:
    """The arguments of our program, however it is called; None if it is another."""
    if words[:2] in (["oc", "mirrorstream"], ["kubectl", "mirrorstream"]):
        return words[2:]
    return words[1:] if words[0] in OURS else None


def _subcommands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


SUBCOMMANDS = _subcommands()


@pytest.mark.parametrize("page", PAGES)
def test_a_session_is_marked_as_one(page: Path) -> None:
    """Commands stand in blocks that a test can find, not in those that only look like a shell."""
    for block in blocks(page):
        assert block.language not in ("bash", "sh", "shell"), f"{block}: commands stand in a block of the language {CONSOLE}"
        prompts = [line for line in block.text.splitlines() if line.startswith("$ ")]
        assert block.language == CONSOLE or not prompts, f"{block}: a command outside of a block of the language {CONSOLE}"
        assert block.language != CONSOLE or prompts, f"{block}: a session without a command; they begin with '$ '"
    inside = {line for block in blocks(page) for line in block.text.splitlines()}
    for line in page.read_text(encoding="utf-8").splitlines():
        assert not line.strip().startswith("$ ") or line.strip() in {text.strip() for text in inside}, (
            f"{title(page)}: {line.strip()}"
        )


@pytest.mark.parametrize("block", SESSIONS)
def test_what_cannot_be_run_says_why(block: Block) -> None:
    """A command that the runner has no program for is marked, and so is one that only oc has."""
    if block.not_run:
        return
    for command in block.commands:
        for words in programs(command):
            assert words[0] in RUNNABLE, f"{block}: {words[0]} is not there where documents are run; mark the block"
            assert not (words[0] == "oc" and OC_ONLY & set(words[1:4])), f"{block}: kubectl has no such command; mark the block"


@pytest.mark.parametrize("block", SESSIONS)
def test_every_command_of_ours_is_one(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """The real parser takes what the documents say, marked or not."""
    for command in block.commands:
        for words in programs(command):
            if (arguments := _ours(words)) is None:
                continue
            try:
                build_parser().parse_args(arguments)
            except SystemExit:
                pytest.fail(f"{block}: {command}: {capsys.readouterr().err.strip()}")


@pytest.mark.parametrize("page", PAGES)
def test_subcommands_and_flags_that_are_named_exist(page: Path) -> None:
    """Also outside of sessions: in the text, and in the forms that show what may be given."""
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"(?:`|^[ \t]+|^\$ )(?:(?:oc|kubectl) )?(?:kubectl-)?mirrorstream ([a-z][^`\n]*)", text, re.MULTILINE):
        name = line.split()[0].strip("[]")
        assert name in SUBCOMMANDS, f"{title(page)}: there is no `mirrorstream {name}`"
        known = set(SUBCOMMANDS[name]._option_string_actions)
        for flag in re.findall(r"(?:^|[\s\[|])(--[a-z][a-z-]*)", line.partition("#")[0]):
            assert flag in known, f"{title(page)}: `mirrorstream {name}` has no {flag}"


def test_flags_that_are_named_alone_exist() -> None:
    """`--metrics-port`, say, belongs to one of our subcommands, or is said of another program on purpose."""
    of_others = {"--all", "--no-index", "--find-links", "--previous", "--dest-cert-dir"}
    known = {flag for parser in SUBCOMMANDS.values() for flag in parser._option_string_actions}
    bed = {"--backend", "--openshift-bin", "--kubeconfig", "--hosted"}
    for page in pages():
        for flag in re.findall(r"`(--[a-z][a-z-]*)[ `]", page.read_text(encoding="utf-8")):
            assert flag in known | bed | of_others, f"{title(page)}: nobody has {flag}"


def test_targets_of_make_exist() -> None:
    """Every `make TARGET` that is named."""
    targets = set(re.findall(r"^([a-z0-9]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in pages():
        for target in re.findall(r"(?:`|^    |^\$ )make ([a-z0-9]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{title(page)}: there is no `make {target}`"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("```console\n$ ls\n", "test.md:1: the block is never closed", id="never-closed"),
        pytest.param("<!-- not run: no -->\n\n```console\n$ ls\n```\n", "must stand right before", id="comment-apart"),
        pytest.param("<!-- exit status many -->\n```console\n$ ls\n```\n", "neither 'not run: REASON' nor", id="status"),
        pytest.param("<!-- not run -->\n```console\n$ ls\n```\n", "neither 'not run: REASON' nor", id="no-reason"),
    ],
)
def test_a_document_that_cannot_be_read_is_said(tmp_path: Path, text: str, problem: str) -> None:
    """A mark that is misspelt must not quietly mean nothing."""
    page = tmp_path / "test.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError, match=re.escape(problem)):
        blocks(page)


def test_a_session_is_read_as_it_is_typed(tmp_path: Path) -> None:
    """Inside of a list, with a line that goes on, with what it prints, with a file before it."""
    page = tmp_path / "test.md"
    session = "    ```console\n    $ ls \\\n    -l | grep x > out\n    x\n    $ pwd\n    ```\n"
    file = '```yaml title="a/b.yaml"\nx: 1\n```\n'
    page.write_text(f"1. First\n\n    <!-- exit status 0 or 3 -->\n{session}\n{file}", encoding="utf-8")
    console, titled = blocks(page)
    assert console.session == (("ls -l | grep x > out", ("x",)), ("pwd", ()))
    assert console.statuses == (0, 3)
    assert [words for command in console.commands for words in programs(command)] == [["ls", "-l"], ["grep", "x"], ["pwd"]]
    assert (titled.title, titled.text, titled.commands) == ("a/b.yaml", "x: 1\n", ())


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        pytest.param(["a  b", "c"], "", id="all"),
        pytest.param(["c"], "", id="a-part"),
        pytest.param(["a …"], "", id="anything"),
        pytest.param(["…", "for 19s, c"], "for 19s, c", id="not-there"),
        pytest.param(["…", "for …s, down"], "", id="within-a-word"),
        pytest.param(["c", "a b"], "a b", id="in-order"),
        pytest.param(["a"], "a", id="a-whole-line"),
    ],
)
def test_what_is_shown_of_an_output(expected: list[str], missing: str) -> None:
    """A document may leave lines out and put … for what differs from run to run; all else is as it is printed."""
    assert not_shown(expected, "a b\n  for 7s,  down\nc\n") == missing
