"""Programs whose watches last for seconds rather than a minute, for tests that would wait for that again and again.

Nothing but these times is other than in what users run. With the full numbers (MIRRORSTREAM_SOAK=1) that is what runs.
"""

import sys

from mirrorstream.kube import informer, resumption

from e2e.testbed.faults.reliability import SOAK
from e2e.testbed.programs.program import Controller, Program, Webhook

WATCH_SECONDS, OVERDUE_SECONDS, ABSENT_SECONDS = (
    (informer.WATCH_SECONDS, informer.OVERDUE_SECONDS, informer.ABSENT_SECONDS) if SOAK else ((2, 3), 1.0, 2.0)
)
QUIET_SECONDS = resumption.QUIET_SECONDS if SOAK else 2.0
_CODE = f"""
import sys
from mirrorstream_cli.main import main
from mirrorstream.kube import informer, resumption
resumption.QUIET_SECONDS = {QUIET_SECONDS}
informer.WATCH_SECONDS, informer.OVERDUE_SECONDS, informer.ABSENT_SECONDS = {WATCH_SECONDS}, {OVERDUE_SECONDS}, {ABSENT_SECONDS}
sys.exit(main())
"""
_EXECUTABLE = Program.executable if SOAK else (sys.executable, "-c", _CODE)


class HastyController(Controller):
    """The controller."""

    executable = _EXECUTABLE


class HastyWebhook(Webhook):
    """The webhook."""

    executable = _EXECUTABLE
