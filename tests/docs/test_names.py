"""Names that the documents use are those of the programs: people search for them, and write alerts on them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mirrorstream.diagnose.pods import NOT_REPAIRED
from mirrorstream.diagnose.tag_status import State
from mirrorstream.imagestream.failures import FailureClass, classify
from mirrorstream.imagestream.outcomes import REASONS
from mirrorstream.runtime.settings import Settings, parse_settings
from mirrorstream_controller import failing_tags as metric
from mirrorstream_webhook.patch import Result
from mirrorstream_webhook.pending_pods.repair import REPAIRED

from docs.generate_configuration import fields
from e2e.testbed.documents import PROJECT, Block, blocks, pages, title

PAGES = [pytest.param(page, id=title(page)) for page in pages()]
PACKAGES = ("mirror/mirrorstream", "mirror/mirrorstream_cli", "controller/mirrorstream_controller", "webhook/mirrorstream_webhook")
MODULES = {path.rpartition("/")[2] for path in PACKAGES}
SOURCES = "\n".join(path.read_text(encoding="utf-8") for folder in PACKAGES for path in sorted((PROJECT / folder).rglob("*.py")))
MANIFESTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((PROJECT / "config").rglob("*.yaml")))
TOP = ("config", "docs", "e2e", "tests", "mirror", "controller", "webhook")


def _code(page: Path) -> Iterator[str]:
    """What stands in code spans and in blocks."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"`([^`\n]+)`", text)
    yield from (block.text for block in blocks(page))


def _pattern(names: str) -> str:
    """`test_*.py`, `config/base/{a,b}` and the like as a glob."""
    return re.sub(r"\{[^}]*\}", "*", names)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: Path) -> None:
    """A folder or file of the project that is named is there."""
    for code in _code(page):
        for path in re.findall(rf"(?<![\w/.:-])(?:\.\./)*((?:{'|'.join(TOP)})/[\w./*{{}},-]+)", code):
            name = path.rstrip(".,/")
            assert list(PROJECT.glob(_pattern(name))), f"{title(page)}: there is no {name}"


@pytest.mark.parametrize("page", PAGES)
def test_metrics_exist(page: Path) -> None:
    """Every metric that is named is one of the programs', with the suffix that its kind gives it."""
    templates = set(re.findall(r'"(mirrorstream_[a-z_{}]+)"', SOURCES)) - MODULES
    known = re.compile(f"(?:{'|'.join(re.sub('{[a-z_]+}', '[a-z_]+', name) for name in templates)})(?:_total|_bucket|_count|_sum)?")
    for name in re.findall(r"\bmirrorstream_[a-z_]+\b", page.read_text(encoding="utf-8")):
        assert name in MODULES or known.fullmatch(name), f"{title(page)}: there is no metric {name}"


@pytest.mark.parametrize("page", PAGES)
def test_reasons_of_events_exist(page: Path) -> None:
    """Every Event of ours that is named."""
    for name in re.findall(r"`((?:Imported|MirrorImport|PendingPod)[A-Za-z]+)`", page.read_text(encoding="utf-8")):
        assert name in REASONS | {REPAIRED, NOT_REPAIRED}, f"{title(page)}: there is no Event {name}"


def _rows(names: str) -> dict[str, list[str]]:
    """The first cells of tables that are such names, by page."""
    found = {title(page): re.findall(rf"^\| `({names})`", page.read_text(encoding="utf-8"), re.MULTILINE) for page in pages()}
    return {name: rows for name, rows in found.items() if rows}


def test_events_have_one_table() -> None:
    """Every reason has its row in one table, where it is searched for."""
    reasons = REASONS | {REPAIRED, NOT_REPAIRED}
    found = _rows("|".join(sorted(reasons)))
    assert {name: sorted(rows) for name, rows in found.items()} == {"docs/troubleshooting.md": sorted(reasons)}


@pytest.mark.parametrize(
    ("names", "page"),
    [
        pytest.param(r"mirrorstream_\w+", "docs/monitoring.md", id="metrics"),
        pytest.param(r"mode|(?:mirrors|controller|webhook)\.[\w.]+", "docs/configuration.md", id="fields"),
    ],
)
def test_metrics_and_fields_have_one_table(names: str, page: str) -> None:
    """Tests of their own hold the tables to the programs; here there is no other one that could say something else."""
    rows = _rows(names)
    assert list(rows) == [page]
    assert len(rows[page]) == len(set(rows[page]))


@pytest.mark.parametrize("page", PAGES)
def test_annotations_and_labels_exist(page: Path) -> None:
    """Every key of ours that is named."""
    text = page.read_text(encoding="utf-8").replace("\\.", ".")
    for name in re.findall(r"\b((?:pods\.)?mirrorstream\.github\.io/[a-z-]+)", text):
        if name == "mirrorstream.github.io/mirrorstream":
            continue  # the site
        webhook, _, annotation = name.partition("/")
        found = f'"{annotation}":' in SOURCES if webhook.startswith("pods.") else name in SOURCES + MANIFESTS
        assert found, f"{title(page)}: nothing has the key {name}"


@pytest.mark.parametrize("page", PAGES)
def test_fields_of_the_configuration_exist(page: Path) -> None:
    """Every field that is named by its path; and every whole file that is shown is a valid one."""
    schema = Settings.model_json_schema()
    known = {path for path, _ in fields(schema, schema["$defs"])}
    for path in re.findall(r"`((?:mirrors|controller|webhook)\.[a-zA-Z]+[a-zA-Z.]*)[:`]", page.read_text(encoding="utf-8")):
        assert path in known, f"{title(page)}: the configuration has no {path}"
    for block in blocks(page):
        if block.language != "yaml":
            continue
        for document in yaml.safe_load_all(block.text):
            if isinstance(document, dict) and document and set(document) <= set(Settings.model_fields):
                parse_settings(yaml.safe_dump(document), str(block))


def test_every_result_of_the_webhook_is_explained() -> None:
    """Both pages that explain results have exactly the results of the audit log."""
    for name in ("how-it-decides.md", "troubleshooting.md"):
        text = (PROJECT / "docs" / name).read_text(encoding="utf-8")
        for result in Result:
            assert f"`{result}`" in text, f"{name} does not explain {result}"
    text = (PROJECT / "docs" / "how-it-decides.md").read_text(encoding="utf-8")
    tables = re.findall(r"\| result if no \|\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    assert len(tables) == 2
    for row in "".join(tables).splitlines():
        for result in re.findall(r"`([^`]+)`", row.split("|")[3]):
            assert result in set(Result), f"how-it-decides.md: there is no result {result}"


def test_states_have_one_vocabulary() -> None:
    """A metric, `status` and the pages call a tag's state by the same word; only an observer has one more."""
    words = set(map(str, metric.FailingState)) - {metric.FailingState.OBSERVED}
    assert words <= set(map(str, State))
    text = (PROJECT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| state \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    assert re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE) == list(metric.FailingState)


def _messages() -> list[tuple[str, str, str]]:
    """The rows of the table of messages: message, reason, class."""
    text = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| message \| means \| class \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    found = []
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        reason = re.search(r"\(reason (\w+)\)", cells[0])
        kinds = re.findall(r"`([a-z-]+)`", cells[2])
        if kinds and cells[0].startswith("`"):
            found += [
                (message, reason[1] if reason else "InternalError", kinds[0]) for message in re.findall(r"`([^`]+)`", cells[0])
            ]
    return found


@pytest.mark.parametrize(("message", "reason", "kind"), [pytest.param(*row, id=row[0][:40]) for row in _messages()])
def test_a_message_means_what_the_table_says(message: str, reason: str, kind: str) -> None:
    """Every message of the table is read by the program as the table says."""
    assert classify(reason, f"Internal error occurred: HOST/team/app:v1: {message}").kind == kind


def test_every_class_of_failure_is_in_the_table() -> None:
    """An Event may name any of them."""
    text = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert [kind for kind in FailureClass if f"| `{kind}` |" not in text] == []


QUOTED = [
    "invalid configuration, keeping the previous one",
    "part of a mirror rule cannot be used",
    "would record",
    "serves another image than the source did",
    "lost leader lease, exiting",
    "what must not be imported is unknown, so nothing is",
    "not read yet: ",
    "not synced yet",
    "the cluster does not serve ",
    "nothing heard of ",
]
"""What the guide quotes of logs and of /readyz."""


@pytest.mark.parametrize("text", QUOTED)
def test_what_is_quoted_is_said(text: str) -> None:
    """Who searches for a line of the log finds it in the guide, as the program says it."""
    assert text in SOURCES
    assert any(text in page.read_text(encoding="utf-8") for page in pages()), "nobody quotes it any more"


SEARCHED = re.compile(r"^\$ oc -n mirrorstream logs [^\n|]*\| (?:grep|grep -i) ([^\n|]+)", re.MULTILINE)
LOOSE = {"certificate", "lease", "STREAM"}
"""One word, which many lines have; or a name that the reader puts in."""


@pytest.mark.parametrize("page", PAGES)
def test_what_is_searched_for_in_logs_is_said(page: Path) -> None:
    """A pattern that no line has finds nothing, which looks as if all were well."""
    for arguments in SEARCHED.findall(page.read_text(encoding="utf-8")):
        for pattern in set(shlex.split(arguments)) - {"-e"} - LOOSE:
            assert pattern in SOURCES, f"{title(page)}: no program says {pattern!r}"


def test_every_block_of_yaml_can_be_read() -> None:
    """Somebody will copy it."""
    read: list[Block] = [block for page in pages() for block in blocks(page) if block.language == "yaml"]
    for block in read:
        list(yaml.safe_load_all(block.text))
    assert read
