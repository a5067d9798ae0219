"""The names that a cluster, or a kubeconfig, has, for a shell that completes a word: soon, or not at all, and silently.

A kubeconfig's contexts are read here, because the kubernetes package, which reads credentials, takes long to import.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirrorstream.kube.client import Client
    from mirrorstream.kube.static_kubeconfig import StaticContext

SECONDS = 0.9
"""With the start of the program, a second."""
THREAD = "completion"
_DEFAULT = "~/.kube/config"


def names(kind: str, word: str, given: Mapping[str, str]) -> list[str]:
    """What `word` may become; `kind` as in completion.py, `given` the values of the options before it. Never raises."""
    found: list[str] = []

    def ask() -> None:
        try:
            found.extend(sorted({name for name in _ASK[kind](word, given) if name.startswith(word)}))
        except Exception:  # noqa: BLE001  a shell that completes a word shows no errors
            found.clear()

    thread = threading.Thread(target=ask, name=THREAD, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return [] if thread.is_alive() else found


def is_asking() -> bool:
    """Whether an answer did not come in time and is still waited for: the program must not end by waiting for it."""
    return any(thread.name == THREAD for thread in threading.enumerate())


def _contexts(word: str, given: Mapping[str, str]) -> Iterable[str]:
    from pathlib import Path  # noqa: PLC0415  only where it is asked for

    from mirrorstream.text.yaml_loader import documents  # noqa: PLC0415

    before = word[: word.rindex(",") + 1] if "," in word else ""
    for path in (given.get("kubeconfig") or os.environ.get("KUBECONFIG") or _DEFAULT).split(os.pathsep):
        file = Path(path).expanduser()
        if not path or not file.is_file():
            continue
        for document in documents(file.read_bytes().decode()):
            yield from (before + context["name"] for context in document.get("contexts") or [])


def _namespaces(_word: str, given: Mapping[str, str]) -> list[str]:
    from mirrorstream.kube.client import ApiError  # noqa: PLC0415  only where it is asked for

    client = _client(given, _known(given))
    try:
        return _listed(client, "/api/v1/namespaces")
    except ApiError as error:
        if error.status != 403:
            raise
        return _listed(client, "/apis/project.openshift.io/v1/projects")


def _streams(word: str, given: Mapping[str, str]) -> list[str]:
    """The streams of the namespace, or of that before a slash; behind a colon the stream's tags."""
    from mirrorstream_cli.single_objects import API  # noqa: PLC0415  only where it is asked for

    namespace, slash, rest = word.rpartition("/")
    known = _known(given)
    namespace = namespace or given.get("namespace") or _default_namespace(given, known)
    stream, colon, _ = rest.partition(":")
    path = f"{API}/namespaces/{namespace}/imagestreams"
    before = word[: len(word) - len(rest)] if slash else ""
    if not colon:
        return [before + name for name in _listed(_client(given, known), path)]
    tags = (_client(given, known).get(f"{path}/{stream}").get("spec") or {}).get("tags") or []
    return [f"{before}{stream}:{tag['name']}" for tag in tags]


def _subjects(word: str, given: Mapping[str, str]) -> list[str]:
    """Namespaces up to the slash, streams and tags behind it."""
    return _streams(word, given) if "/" in word else [f"{name}/" for name in _namespaces(word, given)]


_ASK: dict[str, Callable[[str, Mapping[str, str]], Iterable[str]]] = {
    "context": _contexts,
    "namespace": _namespaces,
    "stream": _streams,
    "subject": _subjects,
}


def _known(given: Mapping[str, str]) -> "StaticContext | None":
    """The context, where it can be read without the kubernetes package, whose import alone may take longer than a shell waits."""
    from mirrorstream.kube.credentials import find_static_context  # noqa: PLC0415  only where it is asked for

    return find_static_context(given.get("kubeconfig"), given.get("context"))


def _default_namespace(given: Mapping[str, str], known: "StaticContext | None") -> str:
    from mirrorstream.kube.credentials import default_namespace  # noqa: PLC0415  only where it is asked for

    return known.namespace if known else default_namespace(given.get("kubeconfig"), given.get("context"))


def _client(given: Mapping[str, str], known: "StaticContext | None") -> "Client":
    from mirrorstream.kube.client import Client, load_client  # noqa: PLC0415  only where it is asked for

    from mirrorstream_cli.single_objects import USER_AGENT  # noqa: PLC0415

    if known:
        return Client(known.load, user_agent=USER_AGENT)
    return load_client(given.get("kubeconfig"), given.get("context"), user_agent=USER_AGENT)


def _listed(client: "Client", path: str) -> list[str]:
    import msgspec  # noqa: PLC0415  only where it is asked for
    from mirrorstream.kube.pager import METADATA_ONLY, read_all  # noqa: PLC0415
    from mirrorstream.text.sanitize import one_line  # noqa: PLC0415

    return [one_line(item["metadata"]["name"]) for item in read_all(client, path, msgspec.json.decode, accept=METADATA_ONLY)]
