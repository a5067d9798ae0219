"""`mirrorstream retry`: `oc import-image`, then asking mirrorstream to try again, and waiting for what comes of it."""

import argparse
import dataclasses
import datetime
from urllib.parse import quote

from mirrorstream.diagnose.retry import (
    CannotRetry,
    RetryOutcome,
    RetryRequest,
    Snapshot,
    attempted_since,
    chosen_tags,
    import_request,
    imported_tags,
    mark,
    outcomes,
    render_outcomes,
    settled,
)
from mirrorstream.diagnose.status import many
from mirrorstream.diagnose.tag_status import tag_states, with_origins
from mirrorstream.imagestream.dry_run import decode_import
from mirrorstream.imagestream.model import RETRY_ANNOTATION
from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client, ConfigurationError
from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.text.terminal import notes

from mirrorstream_cli.commands.status import FAILING, connect
from mirrorstream_cli.output import print_document, print_lines
from mirrorstream_cli.polling import Clock, poll_until
from mirrorstream_cli.progress import Progress
from mirrorstream_cli.reader import Reader
from mirrorstream_cli.single_objects import API

DEFAULT_SECONDS = 60.0
POLL_SECONDS = 0.5
MAX_ATTEMPTS = 5
"""So often a request is made that meets a conflict, or an API server that is away."""
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
        found = retry.carry_out(tag, DEFAULT_SECONDS if args.wait is None else args.wait)
    except (CannotRetry, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    if args.output == "text":
        print_lines([*render_outcomes(found), *notes(retry.reader.notes)])
    else:
        document = {"namespace": namespace, "stream": stream, "tags": [o.document() for o in found], "notes": retry.reader.notes}
        print_document(document, args.output)
    return 0 if all(outcome.well for outcome in found) else FAILING


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
        self._view, self._configured = self.reader.controller_view()
        self._policy, _ = self.reader.rules(self._view)

    def carry_out(self, tag: str | None, seconds: float) -> list[RetryOutcome]:
        """Import and wait; what became of each tag. Raises CannotRetry, ConfigurationError, ClientError."""
        asked = self._import(tag)
        waiting = [name for name in asked.tags if name not in asked.imported]
        known: dict[str, tuple[str, int]] = {}
        if not asked.tags:
            return []
        if waiting and not self._view.observing:
            # The platform's import may have lasted for minutes; what mirrorstream tried in that time is no answer.
            known = {name: mark(state) for name, state in self._snapshot_again(asked.before).states.items()}
            self._ask_again()

        def done(found: Snapshot) -> bool:
            return all(self._settled(asked, found, name, known) for name in waiting)

        seconds = seconds if waiting else 0
        with Progress(now=self._clock.monotonic) as progress:

            def tell(found: Snapshot) -> None:
                settled_now = sum(self._settled(asked, found, name, known) for name in waiting)
                progress.show(f"settled {settled_now} of {many(len(waiting), 'tag')}")

            polled = poll_until(
                self._snapshot, done, seconds=seconds, every=POLL_SECONDS, clock=self._clock, found=asked.before, tell=tell
            )
        if polled.note:
            self.reader.note(polled.note)
        made = outcomes(asked, polled.found)
        states = with_origins((o.state for o in made), self.reader.origins(o.state for o in made if not o.problem))
        # The Image has the mirror's host before the tag is healed; the Event, which has all of the reference, may come later.
        states = [dataclasses.replace(state, through=state.through.partition("/")[0]) for state in states]
        return [dataclasses.replace(outcome, state=state) for outcome, state in zip(made, states, strict=True)]

    def _snapshot(self) -> Snapshot:
        history = self.reader.history(self._stream)  # before the stream: see commands/status.py
        stream = self.reader.stream(self._stream)
        return Snapshot(stream, {state.tag: state for state in tag_states(stream, self._policy, history, self._view)})

    def _snapshot_again(self, before: Snapshot) -> Snapshot:
        try:
            return self._snapshot()
        except ClientError as error:
            if not is_transient(error):
                raise
            return before

    def _settled(self, asked: RetryRequest, found: Snapshot, tag: str, known: dict[str, tuple[str, int]]) -> bool:
        state = found.states.get(tag)
        if state is None:
            return True  # no longer in the spec, or a repository that has tags now
        if asked.unchanged(found, tag):
            return False
        fresh = attempted_since(state, found.stream.annotations.retry, known.get(tag))
        return settled(state, fresh=fresh, configured=self._configured, patient=self._patient)

    def _import(self, tag: str | None) -> RetryRequest:
        """Have the platform import."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            before = self._snapshot()
            stream = before.stream
            tags = chosen_tags(stream, before.states.values(), tag)
            if not tags:
                self.reader.note(f"nothing fails in {self._namespace}/{self._stream}; name a tag to import it again all the same")
                return RetryRequest(before)
            request = import_request(stream, tags, stream.metadata.resource_version)
            timeout = min(LONGEST_IMPORT, SECONDS_FOR_EACH * (len(tags) + 1))
            try:
                answer = self._client.request(
                    "POST", f"{self._root}/imagestreamimports", body=request, decode=decode_import, timeout=timeout
                )
            except ClientError as error:
                if isinstance(error, ApiError) and error.status == 403:
                    why = f"you may not import images into {self._namespace}/{self._stream}"
                    raise ConfigurationError(f"{why}: {error.message}") from error
                if isinstance(error, ApiError) and error.status == 409 and attempt < MAX_ATTEMPTS:
                    continue
                if not is_transient(error):
                    raise
                # A firewall that drops packets can hold the platform up for minutes; the mirrors need not wait for it.
                self.reader.note(f"the platform's own import did not end: {error}")
                return RetryRequest(before, tags, unended=True)
            return RetryRequest(before, tags, frozenset(imported_tags(request, answer)))
        raise AssertionError("the last attempt returns or raises")

    def _ask_again(self) -> None:
        """Tell mirrorstream: an import that fails in the same way as before writes nothing that it could see."""
        stamp = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC).isoformat(timespec="milliseconds")
        body = {"metadata": {"annotations": {RETRY_ANNOTATION: stamp}}}
        path = f"{self._root}/imagestreams/{quote(self._stream, safe='')}"
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH)
            except ClientError as error:
                if isinstance(error, ApiError) and error.status == 403:
                    why = f"you may not patch {self._namespace}/{self._stream}, so mirrorstream is not asked to try again"
                    raise ConfigurationError(f"{why}: {error.message}") from error
                if attempt == MAX_ATTEMPTS or not is_transient(error):
                    raise
                self._clock.sleep(POLL_SECONDS)
            else:
                return
