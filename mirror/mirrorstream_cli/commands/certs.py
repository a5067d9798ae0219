"""`mirrorstream certs`: a certificate for the webhook's Service, of an authority that is thrown away afterwards."""

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.runtime.ca import Authority


def run(args: argparse.Namespace) -> int:
    """Write the files; those that are there are replaced. The exit status. Raises ConfigurationError."""
    now = datetime.now(UTC)
    host = f"{args.service}.{args.namespace}.svc"
    authority = Authority.create(f"{args.service}-ca", now=now, lifetime=timedelta(days=args.days))
    pair = authority.issue([host, f"{host}.cluster.local"], now=now)
    folder = Path(args.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The certificate last: who watches the files finds a whole pair then.
        _write(folder / "ca.crt", authority.certificate, 0o644)
        _write(folder / "tls.key", pair.key, 0o600)
        _write(folder / "tls.crt", pair.certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(f"--out {args.out}: {error.filename}: {error.strerror}") from error
    expiry = f"{pair.not_after:%Y-%m-%d}"
    sys.stdout.write(f"{folder}: tls.crt and tls.key for https://{host}, of the authority in ca.crt; valid until {expiry}\n")
    return 0


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file whole: nobody reads half of it, and a key is never readable by others."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(number, "wb") as file:
        os.fchmod(number, mode)
        file.write(content)
    Path(name).replace(path)
