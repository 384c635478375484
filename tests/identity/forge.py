"""Certificates and requests that are not ours: what a peer might send instead."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

#: Kinds of keys that we do not have.
OTHER_KEYS: dict[str, Callable[[], Private]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def digest(key: Private) -> hashes.HashAlgorithm | None:
    """What a key of that kind signs: Ed25519 hashes by itself."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    key: Private,
    *extensions: x509.ExtensionType,
    subject: x509.Name | None = None,
    signer: Private | None = None,
    hashed: hashes.HashAlgorithm | None = None,
) -> bytes:
    """A certificate (DER), signed by its own key unless there is a *signer*."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or name("x"))
        .issuer_name(subject or name("x"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer or key, hashed or digest(signer or key)).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # the pair of key and hash is right


def request(key: Private, *extensions: x509.ExtensionType, hashed: hashes.HashAlgorithm | None = None) -> bytes:
    """A signing request (DER) that asks for the name "admin" and for *extensions*."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("admin"))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashed or digest(key)).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # the same
