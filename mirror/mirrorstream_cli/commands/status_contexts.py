"""`mirrorstream status --contexts A,B` and `--all-contexts`: how many clusters stand, each asked at the same time as the others."""

import argparse
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from mirrorstream.diagnose.fleet import Answer, FleetReport, UnaskedCluster, cluster_status, render_fleet
from mirrorstream.kube.client import Client, ConfigurationError
from mirrorstream.kube.credentials import find_kubeconfig
from mirrorstream.kube.errors import ClientError, UsageError
from mirrorstream.kube.kubeconfig import Kubeconfig

from mirrorstream_cli.commands.status import read_report, with_details
from mirrorstream_cli.output import print_document, print_lines
from mirrorstream_cli.progress import Progress
from mirrorstream_cli.single_objects import USER_AGENT

SECONDS = 60.0
"""For all clusters, which are asked at the same time."""
T = TypeVar("T")
R = TypeVar("R")


def run(args: argparse.Namespace) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    if args.wait is not None or args.all:
        raise UsageError("--wait and --all are for one cluster: give its --context")
    kubeconfig = find_kubeconfig(args.kubeconfig)
    contexts = _every_cluster(kubeconfig) if args.all_contexts else _known(kubeconfig, args.contexts)
    answers: list[Answer] = []
    with Progress() as progress:
        for answer in at_once(lambda context: ask(kubeconfig, context, args.namespace), contexts, late):
            answers.append(answer)
            progress.count(len(answers), len(contexts), "clusters")
    report = FleetReport(args.namespace, tuple(sorted(answers, key=lambda answer: answer.context)))
    if args.output == "text":
        print_lines(render_fleet(report))
    else:
        print_document(report.document(), args.output)
    return report.exit_status


def _known(kubeconfig: Kubeconfig, wanted: Sequence[str]) -> list[str]:
    known = {context.name for context in kubeconfig.contexts()}
    for name in wanted:
        if name not in known:
            raise ConfigurationError(f"kubeconfig {kubeconfig.path}: there is no context {name!r}")
    return list(dict.fromkeys(wanted))


def _every_cluster(kubeconfig: Kubeconfig) -> list[str]:
    """One context for each cluster and user, the current one if it is among them: `oc` makes another for each project."""
    found: dict[tuple[str, str], str] = {}
    for context in kubeconfig.contexts():
        found.setdefault((context.cluster, context.user), context.name)
    if not found:
        raise ConfigurationError(f"kubeconfig {kubeconfig.path}: there is no context")
    return list(found.values())


def ask(kubeconfig: Kubeconfig, context: str, namespace: str | None) -> Answer:
    """How one cluster stands, in a namespace or in all; or why that cannot be told."""
    try:
        client = Client(lambda: kubeconfig.load(context), user_agent=USER_AGENT)
        report = with_details(*read_report(client, namespace))
    except (ClientError, ConfigurationError) as error:
        return UnaskedCluster(context, str(error))
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # something else than an API server answers
        return UnaskedCluster(context, f"its answer cannot be read: {error}")
    return cluster_status(context, report)


def late(context: str) -> Answer:
    """What is said of a cluster that was not asked in time."""
    return UnaskedCluster(context, f"no answer within {SECONDS:.0f} s")


def at_once(work: Callable[[T], R], items: Sequence[T], late: Callable[[T], R], *, seconds: float = SECONDS) -> Iterator[R]:
    """The results of `work` on each item, as they come, and of `late` for what takes longer; raises what `work` raises.

    A thread for each, of which none keeps the program from ending, as an executor's would: one cluster may not answer for long.
    """
    done: SimpleQueue[tuple[T, R, None] | tuple[T, None, BaseException]] = SimpleQueue()

    def serve(item: T) -> None:
        try:
            done.put((item, work(item), None))
        except BaseException as error:  # noqa: BLE001  the caller raises it
            done.put((item, None, error))

    for item in items:
        threading.Thread(target=serve, args=(item,), daemon=True).start()
    end, missing = time.monotonic() + seconds, list(items)
    while missing:
        try:
            found = done.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            yield from map(late, missing)
            return
        if found[2] is not None:
            raise found[2]
        missing.remove(found[0])
        yield found[1]
