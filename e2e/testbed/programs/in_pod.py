"""Run `mirrorstream` with a service account's files from another folder than a pod's, which only a pod can have.

It imports nothing but the program, whose start is measured.
"""

import os
import sys
from pathlib import Path

from mirrorstream.kube import service_account
from mirrorstream_cli.main import main

FOLDER = "SERVICE_ACCOUNT_FOLDER"
"""The variable that names the folder."""

if __name__ == "__main__":
    service_account.FOLDER = Path(os.environ[FOLDER])
    sys.exit(main())
