"""X.509 for TLS between those of a run: one authority signs for the Ed25519 keys that stand in its directory.

The certificate only carries a key into the handshake; who that is says the directory (``holder``), as everywhere else.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from packets.errors import IdentityError
from packets.security.identity import Certificate, Directory, Identity, write_private

DAYS = 30


class Authority:
    """Signs the X.509 certificates of one run. Its key stays in the process that makes the run, unless it is kept."""

    def __init__(self, name: str = "DA-ITN run", days: int = DAYS) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name, self._days = _name(name), days
        basics = x509.BasicConstraints(ca=True, path_length=0)
        self._own = self._sign(self._name, self._key.public_key(), basics)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate, which everybody trusts."""
        return self._own.public_bytes(Encoding.PEM)

    def keep(self, path: Path) -> None:
        """Write the authority's own key and certificate, for its owner alone: ``load`` signs on with them."""
        write_private(path, _private(self._key) + self.pem)

    @classmethod
    def load(cls, path: Path, days: int = DAYS) -> Authority:
        """Read an authority that was kept; ``IdentityError`` in one line where there is none."""
        key: object = None
        own: x509.Certificate | None = None
        try:
            content = path.read_bytes()
            key, own = load_pem_private_key(content, None), x509.load_pem_x509_certificate(content)
        except OSError as error:
            raise IdentityError(f"{path}: {error.strerror}; `daitn certs` makes an authority") from None
        except (ValueError, TypeError):
            own = None
        if not isinstance(key, Ed25519PrivateKey) or own is None or own.public_key() != key.public_key():
            raise IdentityError(f"{path}: not the key and certificate of an authority; `daitn certs` makes one")
        made = cls.__new__(cls)
        made._key, made._own, made._name, made._days = key, own, own.subject, days
        return made

    def credentials(self, name: str, *, server: bool) -> bytes:
        """Return a fresh private key and its certificate, good for one side of TLS alone."""
        key = Ed25519PrivateKey.generate()
        basics = x509.BasicConstraints(ca=False, path_length=None)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        one = self._sign(_name(name), key.public_key(), basics, x509.ExtendedKeyUsage([purpose]))
        return _private(key) + one.public_bytes(Encoding.PEM)

    def issue(self, identity: Identity) -> bytes:
        """Return an identity's private key and certificate, as ``ssl`` loads them; for its owner alone."""
        basics = x509.BasicConstraints(ca=False, path_length=None)
        one = self._sign(_name(identity.certificate.name), identity.signing.public_key(), basics)
        return _private(identity.signing) + one.public_bytes(Encoding.PEM)

    def save(self, identity: Identity, path: Path) -> None:
        """Write what ``issue`` returns, readable by its owner alone."""
        write_private(path, self.issue(identity))

    def _sign(
        self, subject: x509.Name, key: Ed25519PublicKey, basics: x509.BasicConstraints, *more: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=self._days))
            .add_extension(basics, critical=True)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, None)


def holder(certificate: bytes, directory: Directory, role: str) -> Certificate:
    """Return who of the directory holds an X.509 certificate (DER); ``IdentityError`` when nobody of that role does."""
    try:
        one = x509.load_der_x509_certificate(certificate)
        name = str(one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        key = one.public_key()
    except Exception as error:  # the parser's own errors are many
        raise IdentityError(f"no X.509 certificate of a run: {' '.join(str(error).split())[:100]}") from None
    known = directory.by_name(name)
    if known is None or known.role != role:
        raise IdentityError(f"{name[:48]!r} is no {role} of this run's directory")
    if not isinstance(key, Ed25519PublicKey) or key.public_bytes_raw() != known.signing:
        raise IdentityError(f"{name} has another key in this run's directory")
    return known


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
