"""control's certificate authority: the manager's certificate is its certificate. Needs ``cryptography``.

Key and certificate are one file in a folder of control's own memory volume: they outlive the container, not the pod.
"""

import logging
import os
import re
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshdev.errors import ManagerError, ProtocolError
from meshdev.identity.keys import (
    BACKDATED,
    BACKDATED_FOR_OTHERS,
    UNREADABLE,
    KeyPair,
    common_name,
    id_of,
    requested_key,
    unsigned,
)

log = logging.getLogger("meshdev.identity.authority")

#: Longer than any pod runs: what replaces the authority is a new pod.
_LIFETIME: Final = timedelta(days=3650)
_FILE: Final = "authority.pem"
_MAX_FILE: Final = 16 << 10
_BEGIN_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
#: A DNS subdomain as Kubernetes takes it for the names of pods: its labels have no bound of their own.
_LONG_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME: Final = rf"(?=[^/]{{1,253}}/){_LONG_LABEL}(?:\.{_LONG_LABEL})*"
_WORKLOAD: Final = re.compile(rf"ns/{_LABEL}/[a-z]{{1,32}}/{_NAME}/pod/{_LABEL}")

_SIGNS: Final = {"digital_signature": True}
_SIGNS_CERTIFICATES: Final = {"key_cert_sign": True, "crl_sign": True}
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class Authority:
    """Issues certificates for keys of agents, of control and of the relay. ``certificate`` (DER) is its own."""

    def __init__(self, private: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, trust_domain: str) -> None:
        self.certificate = certificate.public_bytes(Encoding.DER)
        self._private = private
        self._parsed = certificate
        self._id = id_of(private.public_key())
        self._trust_domain = trust_domain

    def identity(self, path: str) -> str:
        """The SPIFFE id of a workload."""
        return f"spiffe://{self._trust_domain}/{path}"

    @classmethod
    def open(cls, folder: Path, trust_domain: str, now: datetime) -> "Authority":
        """Load the authority in *folder*, else make one and write it there.

        *folder* is made where it is missing; it must be of this user and no other may enter it. What is in its file is
        used only if it is an authority of *trust_domain* (the manager pod's uid), whole, and good at *now*; otherwise
        that is logged and a new one takes its place. Raises ManagerError for a folder that is open to others or cannot
        be written, ValueError for a trust domain that is no DNS name.
        """
        if not _DNS_NAME.fullmatch(trust_domain):
            raise ValueError(f"not a trust domain: {trust_domain!r}")
        path = folder / _FILE
        try:
            _prepare(folder)
            _unfinished(path).unlink(missing_ok=True)
            found = _load(path, trust_domain, now)
            if found is None:
                found = _make(trust_domain, now)
                _write(path, found)
        except OSError as error:
            raise ManagerError(f"the manager's key cannot be kept in {folder}: {error.strerror}") from None
        return cls(*found, trust_domain)

    def issue_workload(self, request: bytes, path: str, *, now: datetime, lifetime: timedelta) -> bytes:
        """A client's certificate (DER) for the key of *request* (PKCS#10, DER) that says ``spiffe://<domain>/<path>``.

        *path* is ``ns/<namespace>/<kind>/<name>/pod/<pod uid>``. Of the request only the key counts, which must have
        signed it. Good from 5 minutes ago until *lifetime* from *now*, never longer than the authority. Raises
        ProtocolError for a request or path that a peer should not have sent, ValueError for a lifetime of nothing.
        """
        if not _WORKLOAD.fullmatch(path):
            raise ProtocolError(f"not a workload's identity: {path!r:.200}")
        name = x509.UniformResourceIdentifier(self.identity(path))
        return self._issue(request, name, ExtendedKeyUsageOID.CLIENT_AUTH, (now, now + lifetime), BACKDATED)

    def issue_server(self, request: bytes, name: str, *, now: datetime) -> bytes:
        """A server's certificate (DER) for the key of *request* (PKCS#10, DER) and the DNS name *name*.

        It is good from a day ago until the authority ends: its key ends with its process. Raises ProtocolError for a
        bad request, ValueError for a bad name.
        """
        if not _DNS_NAME.fullmatch(name):
            raise ValueError(f"not a DNS name: {name!r}")
        end = self._parsed.not_valid_after_utc
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        return self._issue(request, x509.DNSName(name), purpose, (now, end), BACKDATED_FOR_OTHERS)

    def _issue(
        self,
        request: bytes,
        name: x509.GeneralName,
        purpose: x509.ObjectIdentifier,
        dates: tuple[datetime, datetime],
        backdated: timedelta,
    ) -> bytes:
        now, end = dates[0], min(dates[1], self._parsed.not_valid_after_utc)
        draft = unsigned(x509.Name([]), self._parsed.subject, requested_key(request), self._id, now, end, backdated)
        draft = (
            draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(_SIGNS), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            # Critical, as there is no subject: RFC 5280, section 4.2.1.6.
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        )
        return draft.sign(self._private, hashes.SHA256()).public_bytes(Encoding.DER)


_Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def _usage(wanted: dict[str, bool]) -> x509.KeyUsage:
    return x509.KeyUsage(**(dict.fromkeys(_USAGES, False) | wanted))


def _make(trust_domain: str, now: datetime) -> _Pair:
    private = ec.generate_private_key(ec.SECP256R1())
    identifier = id_of(private.public_key())
    # Distinct from that of an authority before it.
    name = common_name(f"meshdev-manager-{identifier[:32]}")
    draft = (
        unsigned(name, name, private.public_key(), identifier, now, now + _LIFETIME, BACKDATED_FOR_OTHERS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(_SIGNS_CERTIFICATES), critical=True)
        .add_extension(x509.SubjectAlternativeName([_domain(trust_domain)]), critical=False)
    )
    return private, draft.sign(private, hashes.SHA256())


def _domain(trust_domain: str) -> x509.UniformResourceIdentifier:
    """The SPIFFE id of a trust domain itself: what its authority's certificate says."""
    return x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")


def _unfinished(path: Path) -> Path:
    """Where the file is written first: what a crash leaves there is of no use."""
    return path.with_suffix(".new")


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ManagerError(
            f"the manager's key cannot be kept in {folder}: other users may enter it",
            hint="give control a folder of its own there (a volume's root is open to all), mode 0700",
        )


def _load(path: Path, trust_domain: str, now: datetime) -> _Pair | None:
    """What the file holds; None, and a line in the log, where that is no authority that can be used."""
    try:
        return _checked(_read(path), trust_domain, now)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        reason = str(error) or type(error).__name__
        log.warning("the manager's key in %s cannot be used and is replaced: %.200s", path, reason)
        return None


def _read(path: Path) -> bytes:
    """The file's content, if it is one of ours. Raises OSError, ValueError."""
    # Without O_NONBLOCK a FIFO would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError("it is not a file that only this user may read")
        if status.st_size > _MAX_FILE:
            raise ValueError(f"it has more than {_MAX_FILE} bytes")
        return os.read(descriptor, _MAX_FILE)
    finally:
        os.close(descriptor)


def _checked(data: bytes, trust_domain: str, now: datetime) -> _Pair:
    """The key and the certificate in *data*, which belong together and can be used."""
    key_part, mark, certificate_part = data.partition(_BEGIN_CERTIFICATE)
    private = load_pem_private_key(key_part, None)
    certificate = x509.load_pem_x509_certificate(mark + certificate_part)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("its key is not of EC P-256")  # noqa: TRY004 -- a content like the others, no type of ours
    if private.public_key() != certificate.public_key():
        raise ValueError("key and certificate do not belong together")
    certificate.verify_directly_issued_by(certificate)
    if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("it is not an authority's")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if list(names) != [_domain(trust_domain)]:
        raise ValueError("it is of another pod")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise ValueError("it is not valid at this time")
    return private, certificate


def _write(path: Path, pair: _Pair) -> None:
    """Replace the file in one step: whoever reads it finds the old one, the new one, or none. Raises OSError.

    The folder itself needs no fsync: its memory is lost with the node's.
    """
    private, certificate = pair
    fresh = _unfinished(path)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(KeyPair(private).private_pem + certificate.public_bytes(Encoding.PEM))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
