"""Load from a Go client: on the webhook, as kube-apiserver is one, or on kube-apiserver, as controllers are."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.testbed.support.gobuild import BUILD, alone, cache_folder, go, version
from e2e.testbed.support.processes import Process

MODULE = Path(__file__).parent
WAIT_SECONDS = 120


def program() -> Path:
    """The client, built now if this version never was. Raises BuildError."""
    folder = cache_folder() / "load" / version(MODULE)
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / "load"
    with alone(folder / "lock"):
        if not built.exists():
            go(MODULE, *BUILD, "-o", str(built), ".")
    return built


@dataclass(frozen=True)
class Outcome:
    """What the client saw; seconds are those of single posts, `failures` counts errors by their text.

    `waits` are the seconds of every post, in order of their length, if they were asked for.
    """

    reviews: int
    seconds: float
    p50: float
    p99: float
    mean: float
    longest: float
    patched: int
    denied: int
    failures: dict[str, int]
    protocols: dict[str, int]
    connections: int
    waits: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.reviews / self.seconds


class Load:
    """A running client that posts `bodies` in turn, over kept connections, until it is stopped.

    Or until `seconds` are over, or `count` were posted. With `every`, a connection posts at most once in so many seconds. An answer
    is waited for at most `timeout` seconds. With `pods` the bodies are pods that an API server creates, which knows the client by
    `certificate` and key.
    """

    def __init__(
        self,
        url: str,
        bodies: list[Any],
        folder: Path,
        *,
        ca: Path | None = None,
        connections: int = 1,
        seconds: float = 0,
        count: int = 0,
        every: float = 0,
        timeout: float = 3,
        http2: bool = False,
        pods: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        file = folder / f"reviews-{os.urandom(4).hex()}.jsonl"
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
        command = [str(program()), "-url", url, "-bodies", str(file), "-connections", str(connections), "-seconds", str(seconds)]
        command += ["-timeout", f"{timeout}s"]
        command += ["-ca", str(ca)] if ca else []
        command += ["-count", str(count)] if count else []
        command += ["-every", f"{every}s"] if every else []
        command += ["-http2"] if http2 else []
        command += ["-pods", "-waits"] if pods else []
        command += ["-cert", str(certificate[0]), "-key", str(certificate[1])] if certificate else []
        self._process = Process("load", command, file.with_suffix(".out"))

    def outcome(self, *, stop: bool = True) -> Outcome:
        """Stop it, or wait for its end; what it saw."""
        if stop:
            self._process.stop()
        else:
            self._process.wait(WAIT_SECONDS)
        text = self._process.log()
        try:
            return Outcome(**json.loads(text.splitlines()[-1]))
        except (IndexError, ValueError) as error:
            raise AssertionError(f"the load client failed:\n{text}") from error
