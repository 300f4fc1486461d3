"""Who is who: the keys of one terminal or control centre, and the directory in which its public halves stand.

Every speaker of a run has an ``Identity``: one key that signs (Ed25519, RFC 8032) and one that agrees on keys (X25519,
RFC 7748).  The public halves are its ``Certificate``; all certificates of a run are its ``Directory``, one JSON file
that whoever makes the run writes and everybody reads.  The file is the anchor of trust: it must come to a machine on a
way that nobody else can write to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from packets.errors import IdentityError

DCC_ROLE = "dcc"
MAX_FILE_BYTES = 8 << 20
REREAD_S = 1.0

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Number = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who speaks from an address. ``number`` is the key id of its packets; the keys are raw, 32 bytes each."""

    name: Word
    role: Word
    address: Word
    number: Number
    signing: Key
    agreement: Key

    @property
    def signing_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.signing)

    @property
    def agreement_key(self) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.agreement)


class _Secrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The private file of one identity; keys are raw, 32 bytes each."""

    name: Word
    role: Word
    address: Word
    number: Number
    signing_private: Key
    agreement_private: Key


class Identity:
    """One speaker with its private keys. They leave this object only by ``to_json``, for their owner alone."""

    def __init__(self, certificate: Certificate, signing: Ed25519PrivateKey, agreement: X25519PrivateKey) -> None:
        self.certificate = certificate
        self.signing, self.agreement = signing, agreement

    def __repr__(self) -> str:
        return f"Identity({self.certificate.name!r})"

    @classmethod
    def new(cls, name: str, role: str, address: str, number: int) -> Identity:
        """Make a speaker with fresh random keys; ``IdentityError`` when a field does not fit a certificate."""
        return cls._of(name, role, address, number, Ed25519PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def _of(
        cls, name: str, role: str, address: str, number: int, signing: Ed25519PrivateKey, agreement: X25519PrivateKey
    ) -> Identity:
        fields = {
            "name": name, "role": role, "address": _address(address), "number": number,
            "signing": signing.public_key().public_bytes_raw(), "agreement": agreement.public_key().public_bytes_raw(),
        }  # fmt: skip
        try:
            return cls(msgspec.convert(fields, Certificate), signing, agreement)
        except msgspec.ValidationError as error:
            raise IdentityError(f"identity {name!r}: {error}") from None

    def to_json(self) -> bytes:
        """Return everything about this identity, private keys included."""
        own = self.certificate
        return msgspec.json.encode(
            _Secrets(
                name=own.name, role=own.role, address=own.address, number=own.number,
                signing_private=self.signing.private_bytes_raw(), agreement_private=self.agreement.private_bytes_raw(),
            )
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: bytes | str, where: str = "identity") -> Identity:
        """Read what ``to_json`` wrote; ``IdentityError`` in one line, which never repeats a key."""
        try:
            told = msgspec.json.decode(text, type=_Secrets)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IdentityError(f"{where}: not the keys of an identity: {_one_line(error)}") from None
        return cls._of(
            told.name, told.role, told.address, told.number,
            Ed25519PrivateKey.from_private_bytes(told.signing_private),
            X25519PrivateKey.from_private_bytes(told.agreement_private),
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the private file, readable by its owner alone from its first byte on."""
        _write(path, self.to_json(), 0o600)

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read a private file; ``IdentityError`` in one line."""
        return cls.from_json(_read(path, "key file"), f"key file {path}")


class _DirectoryFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    certificates: Annotated[list[Certificate], msgspec.Meta(max_length=0xFFFF)]


class Directory:
    """All certificates of a run, by address, name and number. Safe to ask from any thread.

    An unknown address makes it look at its file again (a terminal may have joined), at most once a second.
    """

    def __init__(
        self,
        certificates: Iterable[Certificate] = (),
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._clock = path, clock
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = float("-inf")
        self._take(list(certificates), str(path or "directory"))

    @classmethod
    def load(cls, path: Path, clock: Callable[[], float] = time.monotonic) -> Directory:
        """Read a directory file; ``IdentityError`` in one line when there is none or it is broken."""
        directory = cls(path=path, clock=clock)
        directory._read()
        return directory

    def save(self, path: Path) -> None:
        """Write the file whole: a reader sees the old one or the new one. Readable by its owner alone."""
        certificates = sorted(self._by_number.values(), key=lambda c: c.number)
        _write(path, msgspec.json.format(msgspec.json.encode(_DirectoryFile(certificates=certificates))), 0o600)

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Certificate]:
        return iter(list(self._by_number.values()))

    def by_address(self, address: str) -> Certificate | None:
        """Return who speaks from an address (control centres share theirs: ask for them by name)."""
        return self._by_address.get(address) or (self._by_address.get(address) if self._look_again() else None)

    def by_name(self, name: str) -> Certificate | None:
        """Return the certificate of a name."""
        return self._by_name.get(name) or (self._by_name.get(name) if self._look_again() else None)

    def by_number(self, number: int) -> Certificate | None:
        """Return the certificate of a key id."""
        return self._by_number.get(number)

    def _look_again(self) -> bool:
        """Read the file again if it changed and was not looked at just now; a broken one changes nothing."""
        now = self._clock()
        if self._path is None or now - self._looked_at < REREAD_S:
            return False
        self._looked_at = now
        try:
            if self._stamp == _stamp(self._path):
                return False
            self._read()
        except (OSError, IdentityError):
            return False
        return True

    def _read(self) -> None:
        assert self._path is not None
        with contextlib.suppress(OSError):
            self._stamp = _stamp(self._path)
        where = f"directory {self._path}"
        try:
            told = msgspec.json.decode(_read(self._path, "directory"), type=_DirectoryFile)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IdentityError(f"{where}: {_one_line(error)}") from None
        self._take(told.certificates, where)

    def _take(self, certificates: list[Certificate], where: str) -> None:
        by_address: dict[str, Certificate] = {}
        by_name: dict[str, Certificate] = {}
        by_number: dict[int, Certificate] = {}
        for one in certificates:
            address = _address(one.address)
            if one.name in by_name or one.number in by_number or (address in by_address and one.role != DCC_ROLE):
                raise IdentityError(f"{where}: {one.name} (number {one.number}, {address}) stands there twice")
            by_name[one.name] = by_number[one.number] = one
            if one.role != DCC_ROLE:
                by_address[address] = one
        self._by_address, self._by_name, self._by_number = by_address, by_name, by_number


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise IdentityError(f"{text!r} is no IPv4 address; an identity speaks from one, like 10.1.1.1") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{what} {path}: {error.strerror}; `daitn up` makes one for its run") from None
    if len(data) > MAX_FILE_BYTES:
        raise IdentityError(f"{what} {path} is larger than {MAX_FILE_BYTES} bytes: not one of ours")
    return data


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, from its first byte on; ``IdentityError`` in one line."""
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        partial.replace(path)
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}; give a place that you may write to") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
