"""How much a text says of things of which there may be many, or whose names a tenant chose."""

from collections.abc import Sequence
from dataclasses import dataclass

from mirrorstream.diagnose.causes import EXAMPLES
from mirrorstream.text.sanitize import listed, shortened, shortened_inside


@dataclass(frozen=True, slots=True)
class Detail:
    """How many names there are in a list of examples, and how long names and texts may be, in characters."""

    examples: int = EXAMPLES
    name_length: int = 60
    text_length: int = 300

    def name(self, name: str) -> str:
        """A name, shortened."""
        return shortened_inside(name, self.name_length)

    def text(self, text: str) -> str:
        """A text, shortened."""
        return shortened(text, self.text_length)

    def some(self, names: Sequence[str]) -> str:
        """A few names, and how many more there are."""
        return listed([self.name(name) for name in names], self.examples)


FULL = Detail()
