"""What `explain` reads from a cluster, with what its Events and Images say."""

from mirrorstream.diagnose.tag_status import ControllerView, TagState, tag_states, with_origins
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.kube.client import Client, load_client

from mirrorstream_cli.file_source import Source
from mirrorstream_cli.reader import DEFAULTS_NOTE, Reader
from mirrorstream_cli.single_objects import USER_AGENT


def load(kubeconfig: str | None, context: str | None) -> "ClusterSource":
    """The cluster that kubectl would use. Raises ConfigurationError."""
    return ClusterSource(load_client(kubeconfig, context, user_agent=USER_AGENT))


class ClusterSource(Source):
    """On a cluster, with what its Events and Images say."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    def load(self) -> None:
        """Read the rules, and the configuration."""
        self._configure(Reader(self.client, None, self.notes))

    def _configure(self, reader: Reader) -> ControllerView:
        """Read the configuration and the rules, on which every answer depends."""
        view, configured = reader.controller_view()
        self.recorded_reference = view.recorded_reference
        self.policy, _ = reader.rules(view)
        if not configured:
            reader.note(DEFAULTS_NOTE)
        return view

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        """A stream, and how its tags stand by what mirrorstream tried. Raises ClientError."""
        reader = Reader(self.client, namespace, self.notes)
        history = reader.history(name)  # before the stream: see commands/status.py
        stream = reader.stream(name)
        view = self._configure(reader)
        self.events = history.sentences((namespace, name), stream.metadata.uid)
        states = list(tag_states(stream, self.policy, history, view))
        return stream, with_origins(states, reader.origins(states))
