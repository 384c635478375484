"""Key and certificates for ``ssl`` without a file: it takes a key only from a path (bpo-16487, open since 2012)."""

import errno
import os
import ssl
from collections.abc import Sequence
from typing import Final

#: linux/memfd.h, since Linux 6.3: not executable, sealed so. Where vm.memfd_noexec=2, nothing else is allowed.
_MFD_NOEXEC_SEAL: Final = 0x0008


def pem(certificate: bytes) -> str:
    """A certificate (DER) as PEM, with a final newline."""
    return ssl.DER_cert_to_PEM_cert(certificate)


def is_certificate(data: bytes) -> bool:
    """Whether *data* is one certificate (DER), and nothing else, as far as OpenSSL can tell before it is used."""
    # A certificate is a SEQUENCE; its length takes two bytes from 256 bytes to 64 KiB (X.690, 8.1.3.5).
    if data[:2] != b"\x30\x82" or len(data) != 4 + int.from_bytes(data[2:4], "big"):
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data)
    except ssl.SSLError:
        return False
    return True


def load_identity(context: ssl.SSLContext, private_pem: bytes, certificates: Sequence[bytes]) -> None:
    """Let *context* show *certificates* (DER, the own one first) with their private key (PEM, unencrypted).

    The key passes through anonymous memory (memfd), never a file system: a read-only root is fine, and seccomp's
    RuntimeDefault allows the call. Nothing stays open. Raises ssl.SSLError where key and certificate do not belong
    together or cannot be read, OSError where the kernel refuses the memory.
    """
    chain = "".join(map(pem, certificates)).encode()
    descriptor = _memory("meshdev-identity")
    try:
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(private_pem.rstrip() + b"\n" + chain)
        # Opening it by this name starts at its beginning (proc(5)); the process may always do so, dumpable or not.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _memory(name: str) -> int:
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, os.MFD_CLOEXEC)  # a kernel before 6.3, which refuses no executable memory
