"""`mirrorstream retry`: `oc import-image`, then asking mirrorstream to try again, and waiting for what comes of it."""

import argparse
import datetime
from urllib.parse import quote

from mirrorstream.commands.output import print_document, print_lines, say_waiting
from mirrorstream.commands.reading import API, Reader
from mirrorstream.commands.status import FAILING, connect
from mirrorstream.commands.waiting import Clock, look_until
from mirrorstream.imagestreams import RETRY_ANNOTATION
from mirrorstream.kube.client import MERGE_PATCH, ApiError, ApiUnreachable, Client, ConfigurationError
from mirrorstream.kube.errors import ClientError
from mirrorstream.retries import CannotRetry, Outcome, chosen_tags, import_request, imported_tags, render_outcomes, settled
from mirrorstream.statusreport import notes
from mirrorstream.tagstates import TagState, tag_states, with_origins

DEFAULT_SECONDS = 60.0
LOOK_SECONDS = 0.5
CONFLICT_RETRIES = 5
SECONDS_FOR_EACH = 20.0
"""The platform gives up on a registry that drops packets after 15 s, and imports one after another."""
LONGEST_IMPORT = 600.0


def run(args: argparse.Namespace, clock: Clock | None = None) -> int:
    """Import, wait and tell; the exit status. Raises ConfigurationError with one clear line."""
    namespace, stream, tag = _subject(args)
    client, default = connect(args)
    namespace = namespace or default or ""
    try:
        retry = _Retry(client, namespace, stream, patient=args.wait is not None, clock=clock or Clock())
        outcomes = retry.carry_out(tag, DEFAULT_SECONDS if args.wait is None else args.wait)
    except (CannotRetry, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    if args.output == "text":
        print_lines([*render_outcomes(outcomes), *notes(retry.reader.notes)])
    else:
        document = {"namespace": namespace, "stream": stream, "tags": [o.document() for o in outcomes], "notes": retry.reader.notes}
        print_document(document, args.output)
    return 0 if all(outcome.well for outcome in outcomes) else FAILING


def _subject(args: argparse.Namespace) -> tuple[str, str, str | None]:
    """Namespace (empty if it is not given), stream and tag; `NAMESPACE/STREAM:TAG`, as other commands print it, is taken too."""
    namespace, slash, rest = args.subject.rpartition("/")
    stream, colon, tag = rest.partition(":")
    if not stream or (slash and not namespace) or "/" in namespace or (colon and not tag) or "@" in rest:
        raise ConfigurationError(f"{args.subject!r} is not STREAM[:TAG]")
    if namespace and args.namespace and namespace != args.namespace:
        raise ConfigurationError(f"{args.subject!r} is not in namespace {args.namespace!r}")
    if namespace:
        args.namespace = namespace
    return namespace, stream, tag or None


class _Retry:
    def __init__(self, client: Client, namespace: str, stream: str, *, patient: bool, clock: Clock) -> None:
        self._client, self._namespace, self._stream = client, namespace, stream
        self._patient, self._clock = patient, clock
        self._root = f"{API}/namespaces/{quote(namespace, safe='')}"
        self.reader = Reader(client, namespace)
        self._asking, self._configured = self.reader.asking()
        self._policy, _ = self.reader.rules(self._asking)

    def carry_out(self, tag: str | None, seconds: float) -> list[Outcome]:
        """Import and wait; what became of each tag. Raises CannotRetry, ConfigurationError, ClientError."""
        before = self._look()
        known = {state.tag: _mark(state) for state in before}
        tags, imported = self._import(tag)
        if not tags:
            return []
        if set(tags) != imported:
            self._ask_again()

        def done(states: list[TagState]) -> bool:
            return all(self._settled(state, known) for state in states if state.tag in tags and state.tag not in imported)

        say_waiting(seconds, "the outcome")
        found = look_until(self._look, done, seconds=seconds, every=LOOK_SECONDS, clock=self._clock)
        chosen = with_origins([state for state in found if state.tag in tags], self.reader.origins(found))
        return [Outcome(state, platform=state.tag in imported) for state in chosen]

    def _look(self) -> list[TagState]:
        stream = self.reader.stream(self._stream)
        return list(tag_states(stream, self._policy, self.reader.journal(self._stream), self._asking))

    def _settled(self, state: TagState, known: dict[str, tuple[str, int]]) -> bool:
        fresh = state.tried is not None and _mark(state) != known.get(state.tag)
        return settled(state, fresh=fresh, configured=self._configured, patient=self._patient)

    def _import(self, tag: str | None) -> tuple[tuple[str, ...], set[str]]:
        """Have the platform import; the tags, and those of them that it imported."""
        for attempt in range(1, CONFLICT_RETRIES + 1):
            stream = self.reader.stream(self._stream)
            states = tag_states(stream, self._policy, self.reader.journal(self._stream), self._asking)
            tags = chosen_tags(stream, states, tag)
            if not tags:
                self.reader.note(f"nothing fails in {self._namespace}/{self._stream}; name a tag to import it again all the same")
                return (), set()
            request = import_request(stream, tags, stream.metadata.resource_version)
            timeout = min(LONGEST_IMPORT, SECONDS_FOR_EACH * (len(tags) + 1))
            try:
                answer = self._client.request("POST", f"{self._root}/imagestreamimports", body=request, timeout=timeout)
            except ApiError as error:
                if error.status == 403:
                    why = f"you may not import images into {self._namespace}/{self._stream}"
                    raise ConfigurationError(f"{why}: {error.message}") from error
                if error.status == 409 and attempt < CONFLICT_RETRIES:
                    continue
                if error.status < 500:
                    raise
                self.reader.note(f"the platform's own import did not end: {error}")
                return tags, set()
            except ApiUnreachable as error:
                # A firewall that drops packets can hold the platform up for minutes; the mirrors need not wait for it.
                self.reader.note(f"the platform's own import did not end: {error}")
                return tags, set()
            return tags, imported_tags(request, answer)
        raise AssertionError("the last attempt returns or raises")

    def _ask_again(self) -> None:
        """Tell mirrorstream: an import that fails in the same way as before writes nothing that it could see."""
        stamp = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC).isoformat(timespec="milliseconds")
        body = {"metadata": {"annotations": {RETRY_ANNOTATION: stamp}}}
        try:
            path = f"{self._root}/imagestreams/{quote(self._stream, safe='')}"
            self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status != 403:
                raise
            why = f"you may not patch {self._namespace}/{self._stream}, so mirrorstream is not asked to try again"
            raise ConfigurationError(f"{why}: {error.message}") from error


def _mark(state: TagState) -> tuple[str, int]:
    """What an attempt is recognised by: the same outcome again only raises the Event's count."""
    return (state.tried.event, state.tried.count) if state.tried else ("", 0)
