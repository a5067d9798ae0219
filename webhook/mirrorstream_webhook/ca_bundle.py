"""A caBundle that several replicas share: each adds its own authority, and what has expired goes. Pure."""

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

NAME = "mirrorstream-webhook-ca"
"""The common name of our authorities; entries of other names are somebody else's, and stay as they are."""
MAX_CERTIFICATES = 64
"""Pods that are killed leave their entry until it expires; this many of the newest of ours stay."""

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def entries(bundle: bytes) -> list[bytes]:
    """The certificates of a bundle as PEM, without the white space around them; text between them is no entry."""
    return list(_entries(bundle))


def _entries(bundle: bytes) -> Iterator[bytes]:
    # Not a regular expression: with many beginnings and no end it would look for the end from each of them.
    place = bundle.find(_BEGIN)
    while place >= 0 and (end := bundle.find(_END, place + len(_BEGIN))) >= 0:
        yield bundle[place : end + len(_END)]
        place = bundle.find(_BEGIN, end + len(_END))


def has(bundle: bytes, certificate: bytes) -> bool:
    """Whether a bundle has a certificate (PEM)."""
    return certificate.strip() in entries(bundle)


def merge(bundle: bytes, own: list[bytes], now: datetime, replica: str) -> bytes:
    """`bundle` with the certificates in `own`, PEM; the same bytes if nothing is to do.

    Of ours, those go that have expired, and those of the same `replica` that are not in `own`: it was killed and started again.
    """
    mine = [certificate.strip() for certificate in own]
    kept = [entry for entry in entries(bundle) if entry not in mine and not _is_done(entry, now, replica)]
    ours = [entry for entry in kept if _unit(entry) is not None]
    dropped = set(ours[: max(0, len(ours) + len(mine) - MAX_CERTIFICATES)])
    merged = [entry for entry in kept if entry not in dropped]
    if set(merged) | set(mine) == set(entries(bundle)):
        return bundle
    return _join([*merged, *mine])


def without(bundle: bytes, replica: str) -> bytes:
    """`bundle` without the authorities of a replica; the same bytes if it has none of them."""
    kept = [entry for entry in entries(bundle) if _unit(entry) != replica]
    return bundle if len(kept) == len(entries(bundle)) else _join(kept)


def _join(found: list[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in found)


def _is_done(entry: bytes, now: datetime, replica: str) -> bool:
    unit = _unit(entry)
    return unit is not None and (unit == replica or x509.load_pem_x509_certificate(entry).not_valid_after_utc <= now)


def _unit(entry: bytes) -> str | None:
    """Which replica's authority an entry is; None for what is none of ours."""
    try:
        subject = x509.load_pem_x509_certificate(entry).subject
    except (ValueError, x509.InvalidVersion):
        return None
    names, units = (
        [str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)]
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    )
    return units[0] if names == [NAME] and units else None
