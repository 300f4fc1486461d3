"""Keys, certificates and the directory: round trips, strict reading, one-line errors, terminals that join later."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from packets.errors import IdentityError
from packets.security.identity import Directory, Identity

SIGNING = bytes(range(32))
AGREEMENT = bytes(range(32, 64))


def fixed(name: str = "h11", address: str = "10.1.1.1", number: int = 7) -> Identity:
    """An identity whose keys everybody knows."""
    fields = {"name": name, "role": "data", "address": address, "number": number}
    keys = {"signing_private": SIGNING, "agreement_private": AGREEMENT}
    return Identity.from_json(json.dumps(fields | {k: base64.b64encode(v).decode() for k, v in keys.items()}))


def test_public_keys_are_those_of_the_standards() -> None:
    """RFC 8032 and RFC 7748, by the library: fixed private keys give these public ones."""
    own = fixed().certificate
    assert own.signing.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert own.agreement.hex() == "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"


def test_fresh_identities_differ_and_survive_their_file(tmp_path: Path) -> None:
    one, two = (Identity.new("h11", "data", "10.1.1.1", 1) for _ in range(2))
    assert one.certificate.signing != two.certificate.signing
    assert one.certificate.agreement != two.certificate.agreement
    one.save(tmp_path / "h11.key")
    assert stat.S_IMODE((tmp_path / "h11.key").stat().st_mode) == 0o600
    again = Identity.load(tmp_path / "h11.key")
    assert again.certificate == one.certificate
    one.certificate.signing_key.verify(again.signing.sign(b"word"), b"word")
    assert "signing" not in repr(one) and list(tmp_path.iterdir()) == [tmp_path / "h11.key"]


@pytest.mark.parametrize(
    "text, why",
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b'{"name":"h11"}', "role"),
        (b'{"name":"h11","role":"data","address":"10.1.1.1","number":1,"signing_private":"AA==",'
         b'"agreement_private":"AA=="}', "length"),
        (b"\xff\xfe", "not the keys"),
    ],
)  # fmt: skip
def test_a_broken_key_file_is_one_line_without_the_key(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "broken.key"
    path.write_bytes(text)
    with pytest.raises(IdentityError, match=why) as caught:
        Identity.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "AA==" not in str(caught.value)


@pytest.mark.parametrize(
    "name, address, number, why", [("", "10.1.1.1", 1, "length"), ("a", "place", 1, "IPv4"), ("a", "10.0.0.1", 0, "1")]
)
def test_an_identity_that_fits_no_certificate_is_refused(name: str, address: str, number: int, why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        Identity.new(name, "data", address, number)


def people() -> list[Identity]:
    return [
        Identity.new("h11", "data", "10.1.1.1", 1),
        Identity.new("mpvu2", "mpvu", "10.2.2.9", 2),
        Identity.new("dcc1", "dcc", "240.0.0.1", 3),
        Identity.new("dcc2", "dcc", "240.0.0.1", 4),
    ]


def test_a_directory_finds_by_address_name_and_number(tmp_path: Path) -> None:
    known = [p.certificate for p in people()]
    Directory(known).save(tmp_path / "directory.json")
    assert stat.S_IMODE((tmp_path / "directory.json").stat().st_mode) == 0o600
    directory = Directory.load(tmp_path / "directory.json")
    assert list(directory) == known and len(directory) == 4
    assert directory.by_address("10.1.1.1") == directory.by_name("h11") == directory.by_number(1) == known[0]
    assert directory.by_address("240.0.0.1") is None, "an address that several share names nobody"
    assert directory.by_name("dcc2") == known[3]
    assert directory.by_address("10.9.9.9") is directory.by_name("nobody") is directory.by_number(9) is None


@pytest.mark.parametrize("field, value", [("name", "h11"), ("number", 1), ("address", "10.1.1.1")])
def test_nobody_stands_in_a_directory_twice(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "directory.json"
    Directory([p.certificate for p in people()]).save(path)
    told = json.loads(path.read_bytes())
    told["certificates"][1][field] = value
    path.write_text(json.dumps(told))
    with pytest.raises(IdentityError, match="twice"):
        Directory.load(path)


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda d: d | {"extra": 1}, "extra"),
        (lambda d: d | {"version": 2}, "version"),
        (lambda d: {"certificates": [d["certificates"][0] | {"signing": "AAAA"}]}, "signing"),
        (lambda d: {"certificates": [d["certificates"][0] | {"address": "10.1.1"}]}, "IPv4"),
        (lambda d: {"certificates": [d["certificates"][0] | {"secret": "x"}]}, "secret"),
        (lambda d: "word", "str"),
    ],
)
def test_a_directory_is_read_strictly(tmp_path: Path, change: object, why: str) -> None:
    path = tmp_path / "directory.json"
    Directory([p.certificate for p in people()]).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))  # type: ignore[operator]
    with pytest.raises(IdentityError, match=why) as caught:
        Directory.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_directory_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="daitn up"):
        Directory.load(tmp_path / "none.json")


def test_who_joins_later_is_found_and_the_file_is_not_read_for_every_stranger(tmp_path: Path) -> None:
    path, now = tmp_path / "directory.json", [100.0]
    known = [p.certificate for p in people()]
    Directory(known[:1]).save(path)
    directory = Directory.load(path, clock=lambda: now[0])
    assert directory.by_address("10.2.2.9") is None
    Directory(known).save(path)
    assert directory.by_address("10.2.2.9") is None, "it looked just now"
    now[0] += 1.1
    assert directory.by_address("10.2.2.9") == known[1]
    path.write_text("{")
    now[0] += 1.1
    assert directory.by_address("10.7.7.7") is None
    assert directory.by_address("10.1.1.1") == known[0], "a broken file takes nobody's certificate away"
