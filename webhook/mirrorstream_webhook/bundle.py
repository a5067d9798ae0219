"""A caBundle that several replicas share: each adds its own authority, and what has expired goes. Pure."""

import re
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

NAME = "mirrorstream-webhook-ca"
"""The common name of our authorities; entries of other names are somebody else's, and stay as they are."""
MOST = 64
"""A pod that crashes again and again leaves an entry each time: of ours, only so many of the newest stay."""

_ENTRY = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)


def entries(bundle: bytes) -> list[bytes]:
    """The certificates of a bundle as PEM, without the white space around them; text between them is no entry."""
    return [found.strip() for found in _ENTRY.findall(bundle)]


def merge(bundle: bytes, own: list[bytes], now: datetime) -> bytes:
    """`bundle` with the certificates in `own`, and without those of ours that have expired; the same bytes if nothing is to do.

    `own` are PEM, newest last.
    """
    mine = [certificate.strip() for certificate in own]
    kept = [entry for entry in entries(bundle) if entry not in mine and not _expired(entry, now)]
    ours = [entry for entry in kept if _is_ours(entry)]
    dropped = set(ours[: max(0, len(ours) + len(mine) - MOST)])
    merged = [entry for entry in kept if entry not in dropped]
    if set(merged) | set(mine) == set(entries(bundle)):
        return bundle
    return _join([*merged, *mine])


def without(bundle: bytes, own: list[bytes]) -> bytes:
    """`bundle` without the certificates in `own`; the same bytes if it has none of them."""
    mine = [certificate.strip() for certificate in own]
    kept = [entry for entry in entries(bundle) if entry not in mine]
    return bundle if len(kept) == len(entries(bundle)) else _join(kept)


def _join(found: list[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in found)


def _expired(entry: bytes, now: datetime) -> bool:
    return _is_ours(entry) and x509.load_pem_x509_certificate(entry).not_valid_after_utc <= now


def _is_ours(entry: bytes) -> bool:
    try:
        subject = x509.load_pem_x509_certificate(entry).subject
    except ValueError:  # whatever it is, it is not ours
        return False
    return [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [NAME]
