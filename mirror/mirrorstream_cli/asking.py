"""Asking the mirrors for many images with dry runs: many at once, at most half of them at one mirror, as the controller does."""

import threading
from collections.abc import Callable, Sequence
from urllib.parse import quote

from mirrorstream.diagnose.check import TagCheck
from mirrorstream.imagestream.dry_run import IMAGE_SECONDS, REPOSITORY_SECONDS, decode_import, served_digest
from mirrorstream.kube.client import ApiError, Client
from mirrorstream.kube.errors import ClientError
from mirrorstream.kube.ratelimit import RateLimiter
from mirrorstream.rules.candidates import Candidate
from mirrorstream.text.sanitize import one_line
from mirrorstream_controller.import_queue import ImportQueue

from mirrorstream_cli.single_objects import API

CONCURRENCY = 16
"""As many dry runs at once as the controller makes by default."""
SHARE = 0.2
"""The part of the controller's rate of requests that may be used: the API server must not feel it."""
AHEAD = 4 * CONCURRENCY
"""How many tags are asked for, or wait for their turn, at once: of what comes later nothing is lost when somebody stops it."""
PROGRESS_SECONDS = 1.0
NOT_ALLOWED = "not allowed by whitelist"
"""The API server's words for a reference outside of allowedRegistriesForImport."""


class Asking:
    """The dry runs for some tags; `progress` is called with the number of tags whose fate is known, `limiter` limits the rate."""

    def __init__(self, client: Client, progress: Callable[[int], None], limiter: RateLimiter) -> None:
        self._client, self._progress, self._limiter = client, progress, limiter
        self._condition = threading.Condition()
        self._found: dict[int, TagCheck] = {}
        self._failed: Exception | None = None
        self.refused: dict[str, str] = {}
        """Namespaces that are gone, or in which the caller may not ask, each with the API server's words."""

    def ask(self, checks: Sequence[TagCheck]) -> list[TagCheck]:
        """The checks with the mirrors' answers, in the same order; fewer after Ctrl-C: those whose answers are known by then."""
        queue = ImportQueue(CONCURRENCY)
        try:
            for index, check in enumerate(checks):
                self._wait_until(index - AHEAD + 1)
                self._submit(queue, index, check)
            self._wait_until(len(checks))
        except KeyboardInterrupt:
            if not self._found:
                raise
        finally:
            queue.stop()
        with self._condition:
            return [self._found[index] for index in sorted(self._found)]

    def _wait_until(self, count: int) -> None:
        """Wait until the fate of so many tags is known. Raises what went wrong."""
        with self._condition:
            while len(self._found) < count and self._failed is None:
                self._condition.wait(PROGRESS_SECONDS)
                self._progress(len(self._found))
        if self._failed is not None:
            raise self._failed

    def _submit(self, queue: ImportQueue, index: int, check: TagCheck) -> None:
        candidate = check.next_candidate
        if candidate is None:
            with self._condition:
                self._found[index] = check
                self._condition.notify()
            return
        queue.submit(check.namespace, candidate.host, lambda: self._run(queue, index, check, candidate))

    def _run(self, queue: ImportQueue, index: int, check: TagCheck, candidate: Candidate) -> None:
        try:
            self._submit(queue, index, self._answered(check, candidate))
        except Exception as error:  # noqa: BLE001  raised again by `ask`: the queue would log it, and nothing would end the wait
            with self._condition:
                self._failed = error
                self._condition.notify()

    def _answered(self, check: TagCheck, candidate: Candidate) -> TagCheck:
        """The check after one dry run."""
        if why := self.refused.get(check.namespace):
            return check.not_asked(candidate, why)
        path = f"{API}/namespaces/{quote(check.namespace, safe='')}/imagestreamimports"
        timeout = IMAGE_SECONDS if check.tag else REPOSITORY_SECONDS
        self._limiter.wait()
        try:
            answer = self._client.request("POST", path, body=check.request(candidate), decode=decode_import, timeout=timeout)
        except ApiError as error:
            if error.status in (403, 404):
                why = "you may not import images into" if error.status == 403 else "there is no import of images in"
                self.refused[check.namespace] = f"{why} {check.namespace}: {one_line(error.message)}"
                return check.not_asked(candidate, self.refused[check.namespace])
            if error.status == 422 and NOT_ALLOWED in error.message:
                why = f"{candidate.host} is not in spec.allowedRegistriesForImport of the Image config: only an account that may"
                return check.not_asked(candidate, f"{why} create images, such as mirrorstream's, may ask it")
            return check.not_asked(candidate, f"the API server did not ask {candidate.host}: {one_line(str(error))}")
        except ClientError as error:
            return check.not_asked(candidate, f"the API server did not ask {candidate.host}: {one_line(str(error))}")
        return check.answered(candidate, served_digest(answer, candidate))


def nobody_could_ask(checks: Sequence[TagCheck], refused: dict[str, str]) -> str:
    """Why not a single mirror could be asked, for want of a right or a namespace; empty if one was, or none had to be."""
    return next(iter(refused.values()), "") if not any(check.answers for check in checks) else ""
