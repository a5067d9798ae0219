"""What a replica does that has the lease."""

from tests.kube.test_leaderelection import Leases, Replica


def test_who_cannot_start_to_lead_does_not_lead() -> None:
    """A replica that renews the lease and does nothing keeps others from working."""
    replica = Replica(Leases(), "one")

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    replica.election._on_started_leading = fail
    replica.election.attempt()
    assert (replica.leads, replica.lost) == (False, ["failed to start leading"])
