"""A certificate authority in memory, for those who have none: it signs certificates for servers, and nothing else."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mirrorstream.runtime.certs import CertificatePair

SKEW = timedelta(hours=1)
"""How far in the past a certificate's validity begins: the clocks of a cluster differ, also those of its API servers."""

LONGEST_NAME = 64
"""Characters of an attribute of a name, by X.520."""


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority's certificate (PEM), until when it is valid, and the key that leaves it in no form."""

    certificate: bytes
    not_after: datetime
    _key: ec.EllipticCurvePrivateKey
    _name: x509.Name

    @classmethod
    def create(cls, name: str, *, now: datetime, lifetime: timedelta, unit: str = "") -> "Authority":
        """A new authority with the common name `name` and perhaps an organizational unit, with a key on P-256.

        Of both texts the first 64 characters count, which is what a name may have.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [(NameOID.COMMON_NAME, name), *([(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else [])]
        subject = x509.Name([x509.NameAttribute(oid, text[:LONGEST_NAME]) for oid, text in attributes])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            _builder(subject, subject, key, now, now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(_sign(builder, key), now + lifetime, key, subject)

    def issue(self, hosts: list[str], *, now: datetime) -> CertificatePair:
        """A certificate for a server that is reached by one of `hosts` (DNS names, addresses), valid as long as the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        # Nobody looks at it where there are alternative names.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:LONGEST_NAME])])
        builder = (
            _builder(subject, self._name, key, now, self.not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return CertificatePair(_sign(builder, self._key), private, self.not_after)


def _alternative(host: str) -> x509.GeneralName:
    """A host as clients look for it: an address is no DNS name to them."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(not_after)
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
