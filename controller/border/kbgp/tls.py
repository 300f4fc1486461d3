"""TLS 1.3 between border speakers: both sides show a certificate of the run, and the directory says whose it is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from controller.errors import PlanError
from packets.errors import IdentityError
from packets.security.identity import Directory
from packets.security.x509 import holder
from topologies.plan import KBG_ROLE


@dataclass(frozen=True)
class Files:
    """Where a speaker's credentials lie; ``keylog``: where TLS keys go, for captures to be read (none: nowhere)."""

    certificate: Path
    authority: Path
    keylog: Path | None = None


def context(files: Files, *, server: bool) -> ssl.SSLContext:
    """Return one side of TLS; ``PlanError`` when a file is no good."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # the directory knows names, not the resolver
    made.verify_mode = ssl.CERT_REQUIRED
    for path, load in ((files.certificate, made.load_cert_chain), (files.authority, made.load_verify_locations)):
        try:
            load(path)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, FileNotFoundError) else "no PEM of a key or certificate"
            raise PlanError(f"{path}: {why}; packets.security.x509.Authority makes one") from error
    if files.keylog is not None:
        made.keylog_filename = str(files.keylog)
    return made


def name_of(transport: ssl.SSLObject | ssl.SSLSocket | None, directory: Directory) -> str:
    """Return the name of who is at the other end; ``IdentityError`` when it is no gateway of this run."""
    shown = transport.getpeercert(binary_form=True) if transport is not None else None
    if not shown:
        raise IdentityError("it showed no certificate")
    return holder(shown, directory, KBG_ROLE).name
