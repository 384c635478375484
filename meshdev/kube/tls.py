"""TLS to the API server: whom it trusts, and the client's certificate."""

import os
import ssl

from meshdev.errors import ConfigError, CredentialError
from meshdev.kube.certificates import chain, private_key
from meshdev.kube.credentials import Credentials
from meshdev.kube.endpoint import Endpoint


def context(endpoint: Endpoint, credentials: Credentials) -> ssl.SSLContext:
    """For one connection, as the Kubernetes client makes it for many."""
    try:
        made = ssl.create_default_context(cadata=endpoint.authority.decode("ascii") if endpoint.authority else None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"certificate-authority in the kubeconfig holds no certificate: {error}") from error
    # Python ≥ 3.13 refuses CAs without an Authority Key Identifier, which many clusters have and kubectl takes.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not endpoint.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    load_client_certificate(made, credentials)
    return made


def load_client_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    """OpenSSL reads files only: these are in memory, so no private key is ever written to a disk."""
    if credentials.certificate is None:
        return
    if credentials.key is None:
        raise CredentialError("the kubeconfig has a client certificate without its key")
    files = [os.memfd_create("client-certificate"), os.memfd_create("client-key")]
    try:
        contents = (chain(credentials.certificate), private_key(credentials.key))
        for file, content in zip(files, contents, strict=True):
            os.write(file, content)
        certificate, key = (f"/proc/self/fd/{file}" for file in files)
        context.load_cert_chain(certificate, key, password="")  # an encrypted key fails, instead of a prompt
    except ssl.SSLError as error:
        raise CredentialError(f"the client certificate in the kubeconfig cannot be used: {error.reason}") from error
    finally:
        for file in files:
            os.close(file)
