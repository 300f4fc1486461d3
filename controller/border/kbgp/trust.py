"""Whose word knowledge is: the control centre of a K-AS signs what it tells of itself, every speaker verifies it."""

from __future__ import annotations

from collections import OrderedDict

from cryptography.exceptions import InvalidSignature

from controller.border.kbgp.rib import Verify
from packets.kbgp.knowledge import Knowledge, text_to_sign
from packets.kbgp.messages import Advertisement
from packets.security.identity import DCC_ROLE, Directory, Identity

REMEMBERED = 1024  # verdicts: one word comes by many neighbours


def dcc_name(kas: int) -> str:
    """Return the name of a K-AS's control centre in the directory."""
    return f"dcc{kas}"


def sign(knowledge: Knowledge, identity: Identity) -> bytes:
    """Return a control centre's signature of what it tells."""
    return identity.signing.sign(text_to_sign(knowledge))


def verifier(directory: Directory) -> Verify:
    """Return what tells whether an advertisement is its origin's word."""
    known: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    def verify(told: Advertisement) -> bool:
        text = text_to_sign(told.knowledge)
        if (text, told.signature) in known:
            return True
        signer = directory.by_name(dcc_name(told.origin))
        if signer is None or signer.role != DCC_ROLE:
            return False
        try:
            signer.signing_key.verify(told.signature, text)
        except InvalidSignature:
            return False
        known[text, told.signature] = None
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        return True

    return verify
