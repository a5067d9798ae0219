"""Certificates and keys in files: read whole, checked before anything uses them, and noticed when they change."""

import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.runtime.metrics import Sample

MINIMUM_RSA_BITS, MAXIMUM_RSA_BITS = 2048, 8192
CURVES = (ec.SECP256R1, ec.SECP384R1)


class CertificateError(ConfigurationError):
    """A certificate and key that cannot be served; one line that names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """The content of a certificate's file (its chain, PEM) and of its key's; they belong together."""

    certificate: bytes
    key: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid, as Unix times."""

    start: float
    end: float


def validity_of(certificate: bytes) -> Validity:
    """The validity of the first certificate of a chain in PEM. Raises ValueError."""
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    return Validity(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())


def validity_gauges(port: str, validity: Validity | None) -> Iterable[Sample]:
    """The gauges of the certificate that a port (`webhook`, `metrics`) serves with; none where it serves plain HTTP."""
    if validity:
        for name, text, value in (
            ("start", f"Start of the validity of the certificate of the {port} port, as a Unix time", validity.start),
            ("expiry", f"Expiry of the certificate of the {port} port, as a Unix time", validity.end),
        ):
            yield f"mirrorstream_{port}_certificate_{name}_timestamp_seconds", text, (), {(): value}


def pair_fingerprint(certificate_file: str, key_file: str) -> str:
    """What the files' content is recognised by, without checking it; the text of the error when they cannot be read."""
    try:
        return hashlib.sha256(Path(certificate_file).read_bytes() + b"\0" + Path(key_file).read_bytes()).hexdigest()
    except OSError as error:
        return str(error)


def read_pair(certificate_file: str, key_file: str) -> CertificatePair:
    """Read and check a certificate and its key. Raises CertificateError.

    Checked is what a TLS server would stumble over later: whether the two belong together (they are changed one after the other
    where somebody copies files), and whether the key is of a kind that the server can use: RSA of 2048 to 8192 bits, ECDSA on
    P-256 or P-384, Ed25519.
    """
    try:
        certificate, key = Path(certificate_file).read_bytes(), Path(key_file).read_bytes()
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
    try:
        chain = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise CertificateError(f"{certificate_file}: not a certificate in PEM: {error}") from error
    try:
        private = load_pem_private_key(key, password=None)
    except UnsupportedAlgorithm as error:
        raise CertificateError(f"{key_file}: {error}") from error
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{key_file}: not an unencrypted private key in PEM: {error}") from error
    if problem := _unusable(private):
        raise CertificateError(f"{key_file}: {problem}")
    if chain[0].version is not x509.Version.v3:
        raise CertificateError(f"{certificate_file}: an X.509 certificate of version 1, which TLS clients refuse")
    if _spki(chain[0].public_key()) != _spki(private.public_key()):
        raise CertificateError(f"{certificate_file}: not the certificate of the key in {key_file}")
    _try(certificate_file, key_file)
    return CertificatePair(certificate, key, chain[0].not_valid_after_utc)


def _unusable(key: object) -> str:
    """Why a private key cannot be used; empty if it can."""
    if isinstance(key, rsa.RSAPrivateKey):
        if MINIMUM_RSA_BITS <= key.key_size <= MAXIMUM_RSA_BITS:
            return ""
        return f"an RSA key of {key.key_size} bits; it must have {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS}"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "" if isinstance(key.curve, CURVES) else f"an ECDSA key on {key.curve.name}; it must be on P-256 or P-384"
    return "" if isinstance(key, ed25519.Ed25519PrivateKey) else "neither an RSA, nor an ECDSA, nor an Ed25519 key"


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _try(certificate_file: str, key_file: str) -> None:
    """Load the pair as a TLS server does."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"certificate {certificate_file} with key {key_file}: {error}") from error
