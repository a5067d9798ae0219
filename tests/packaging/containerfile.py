"""The Containerfile as data, and its steps performed without an engine."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its continuation lines joined."""

    name: str
    text: str

    def pairs(self) -> dict[str, str]:
        """`KEY=VALUE …` of LABEL, ENV and ARG; an ARG without a default has an empty one."""
        return {key: value for key, _, value in (word.partition("=") for word in shlex.split(self.text))}


@dataclass
class Stage:
    """What is between one FROM and the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Its instructions of one name, in order."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def pairs(self, name: str) -> dict[str, str]:
        """What all its LABELs, ENVs or ARGs say together."""
        return {key: value for instruction in self.all(name) for key, value in instruction.pairs().items()}


@dataclass
class Containerfile:
    """The arguments before the first FROM, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]

    @classmethod
    def read(cls, path: Path) -> "Containerfile":
        """Parse the part of the format that is used here."""
        text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
        read = cls({}, [])
        for line in re.sub(r"\\\n", " ", text).splitlines():
            if not line.strip():
                continue
            name, _, rest = line.strip().partition(" ")
            instruction = Instruction(name, rest.strip())
            if name == "FROM":
                base, _, alias = instruction.text.partition(" AS ")
                read.stages.append(Stage(base, alias))
            elif read.stages:
                read.stages[-1].instructions.append(instruction)
            else:
                read.arguments.update(instruction.pairs())
        return read


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}` as an engine replaces it. Raises KeyError for a name that nothing declares."""
    return _VARIABLE.sub(lambda found: values[found[1]], text)


class Performer:
    """Performs stages in a folder: each path of `places` stands for the one in the image, in all that is run and copied."""

    def __init__(self, context: Path, places: Mapping[str, Path], arguments: Mapping[str, str]) -> None:
        self.context, self.places, self.arguments = context, places, arguments

    def path(self, text: str) -> str:
        """A text with the image's paths replaced."""
        for inside, outside in self.places.items():
            text = re.sub(rf"{re.escape(inside)}(?![\w-])", str(outside), text)
        return text

    def perform(self, stage: Stage) -> None:
        """COPY and RUN, with ARG, ENV and WORKDIR as an engine has them. Raises AssertionError with a failed step's output."""
        declared = {key: self.arguments.get(key, value) for key, value in stage.pairs("ARG").items()}
        environment = {key: value for key, value in declared.items() if value} | stage.pairs("ENV")
        folder = Path("/")
        for step in stage.instructions:
            if step.name == "WORKDIR":
                folder = Path(self.path(step.text))
                folder.mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy(step, folder)
            elif step.name == "RUN":
                command = self.path(substitute(step.text, declared))
                done = subprocess.run(
                    ["/bin/sh", "-c", command],
                    cwd=folder,
                    env={**_outer(), **environment},
                    capture_output=True,
                    text=True,
                    check=False,
                    umask=0o022,
                )
                assert done.returncode == 0, f"RUN {command}\nexit status {done.returncode}:\n{done.stdout}{done.stderr}"

    def _copy(self, step: Instruction, folder: Path) -> None:
        *sources, target = step.text.split()
        if sources[0].startswith("--from="):
            assert self.path(sources[1]) == self.path(target), "the environment's paths are fixed: it stays where it was made"
            return
        for source in sources:
            origin, into = self.context / source, folder / target
            if origin.is_dir():
                shutil.copytree(origin, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, into / origin.name)


def _outer() -> dict[str, str]:
    """Of this machine's environment only what decides where packages come from, and the cache that spares downloads."""
    names = ("PATH", "HOME", "LANG", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "XDG_CACHE_HOME")
    return {key: value for key, value in os.environ.items() if key in names or key.startswith("PIP_")}
