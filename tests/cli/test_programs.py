"""How controller and webhook end their process."""

import subprocess
import sys

CODE = """
import atexit, sys, threading
from mirrorstream_controller import manager
from mirrorstream_cli.main import main

class Manager:
    def __init__(self, *args, **kwargs): pass
    def run(self):
        # What a library may do: a thread that nobody can end, or a function at exit that waits for one.
        {hold}
        print("stopped")
        return 3

manager.Manager = Manager
sys.exit(main(["controller"]))
"""


def test_a_program_that_has_stopped_ends_its_process_with_its_status() -> None:
    """Neither a thread nor an exit function that never returns can hold it; its output is complete."""
    for hold in ("threading.Thread(target=threading.Event().wait).start()", "atexit.register(threading.Event().wait)"):
        command = [sys.executable, "-c", CODE.format(hold=hold)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, "stopped\n", "")
