"""Keys of our processes, and the id that a key has in all its certificates. Needs ``cryptography``.

A key is made as its process starts and stays in memory. Only EC P-256 keys exist for us: one kind, small, and known to
every TLS library. All times are aware datetimes.

Measured (Python 3.11, cryptography 50): the library costs a process that has ``ssl`` already 25 ms and 12 MB. A key
takes 16 µs, a self-signed certificate 43, an issued one 110, :func:`key_id` 8. Certificates have 430 to 840 bytes.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from meshdev.errors import ProtocolError

#: Bytes of a certificate or of a request (DER) that a peer shows: ours have under 700.
MAX_DER: Final = 4 << 10
#: How far back a certificate's time begins: of one that the manager checks, whose clock may be put back a little, and
#: of one that pods check, each by its own clock.
BACKDATED: Final = timedelta(minutes=5)
BACKDATED_FOR_OTHERS: Final = timedelta(days=1)
#: What the library raises at bytes that it cannot read, at what it does not know, and at a signature that is wrong.
UNREADABLE: Final = (
    *(ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature),
    *(x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension),
)


class KeyPair:
    """A private key in memory. ``private_pem`` is PKCS#8 without encryption: for OpenSSL and for Envoy's SDS."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.key_id = id_of(private.public_key())
        self.private_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @classmethod
    def generate(cls) -> "KeyPair":
        """A new one."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def self_signed(self, *, lifetime: timedelta, now: datetime) -> bytes:
        """A certificate (DER) for a server that is known by its fingerprint, good from 5 minutes ago until *lifetime*
        from *now*. It issues nothing (CA:FALSE)."""
        name = common_name(self.key_id[:32])
        draft = unsigned(name, name, self._private.public_key(), self.key_id, now, now + lifetime)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return draft.sign(self._private, hashes.SHA256()).public_bytes(Encoding.DER)

    def request(self) -> bytes:
        """A request for a certificate of this key (PKCS#10, DER). It asks for no name: the authority decides."""
        draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return draft.sign(self._private, hashes.SHA256()).public_bytes(Encoding.DER)


def key_id(certificate: bytes) -> str:
    """The id of a certificate's (DER) key. Raises ProtocolError where it is none of an EC P-256 key.

    It says whose key it is, not that the certificate is good: that is for who verified it in a handshake.
    """
    check_size(certificate, "certificate")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UNREADABLE as error:
        raise ProtocolError(f"a certificate cannot be read: {error!s:.200}") from None
    return id_of(p256(key, "certificate"))


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key that signed *request* (PKCS#10, DER). Raises ProtocolError where it is none of EC P-256."""
    check_size(request, "signing request")
    try:
        parsed = x509.load_der_x509_csr(request)
        key = p256(parsed.public_key(), "signing request")
        known = parsed.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256
        if not known or not parsed.is_signature_valid:
            raise ProtocolError("a signing request is not signed by its key")
    except UNREADABLE as error:
        raise ProtocolError(f"a signing request cannot be read: {error!s:.200}") from None
    return key


def id_of(key: ec.EllipticCurvePublicKey) -> str:
    """The id of a key: sha256 of its SubjectPublicKeyInfo, 64 hexadecimal digits; the same however it was encoded."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def p256(key: object, what: str) -> ec.EllipticCurvePublicKey:
    """The public key of *what*, which must be of EC P-256. Raises ProtocolError."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ProtocolError(f"the key of a {what} is not of EC P-256")
    return key


def check_size(data: bytes, what: str) -> None:
    """Raise ProtocolError where *data* is larger than a certificate or request of ours ever is."""
    if len(data) > MAX_DER:
        raise ProtocolError(f"a {what} has {len(data)} bytes; at most {MAX_DER} are taken")


def common_name(text: str) -> x509.Name:
    """A distinguished name of nothing but *text* (at most 64 characters, RFC 5280 appendix A.1)."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_id: str,
    now: datetime,
    end: datetime,
    backdated: timedelta = BACKDATED,
) -> x509.CertificateBuilder:
    """What all our certificates have: dates, a random serial, key identifiers. Raises ValueError for bad dates."""
    if now.tzinfo is None or end <= now:
        raise ValueError(f"not the dates of a certificate: {now} to {end}")
    issuer_key = x509.AuthorityKeyIdentifier(_short(issuer_id), None, None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - backdated)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier(_short(id_of(key))), critical=False)
        .add_extension(issuer_key, critical=False)
    )


def _short(identifier: str) -> bytes:
    """RFC 7093, section 2, method 4: a hash of the SubjectPublicKeyInfo; 160 bits of it, as for all methods there."""
    return bytes.fromhex(identifier)[:20]
