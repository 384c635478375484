"""Tokens, certificates and plugins of a kubeconfig user."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import ConfigError, CredentialError
from meshdev.kube.credentials import CredentialSource
from meshdev.kube.kubeconfig import Kubeconfig

CLUSTER = {"server": "https://k", "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": 1}}]}


def source(user: dict[str, Any], **environment: str) -> CredentialSource:
    return CredentialSource(Kubeconfig("c", "default", "https://k", CLUSTER, user), environment)


def plugin(script: str, **more: Any) -> dict[str, Any]:
    return {
        "exec": {"command": sys.executable, "args": ["-c", script], "apiVersion": "client.authentication.k8s.io/v1"}
        | more
    }


def printing(status: dict[str, Any]) -> str:
    return f"print('''{json.dumps({'kind': 'ExecCredential', 'status': status})}''')"


async def authorization(user: dict[str, Any]) -> str | None:
    return (await source(user).get()).authorization


async def test_tokens_and_passwords(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert await authorization({}) is None
    assert await authorization({"token": "t"}) == "Bearer t"
    assert await authorization({"token": "t", "tokenFile": str(file)}) == "Bearer from-file"
    assert await authorization({"username": "u", "password": "p"}) == "Basic dTpw"


async def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    credentials = source({"tokenFile": str(file)})
    await credentials.get()
    file.write_text("two")
    assert (await credentials.get()).authorization == "Bearer two"


async def test_a_token_file_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="/nowhere, named in the kubeconfig, cannot be read"):
        await source({"tokenFile": "/nowhere"}).get()


async def test_certificates_from_data_and_files(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"KEY")
    user = {"client-certificate-data": base64.b64encode(b"CERT").decode(), "client-key": str(tmp_path / "k")}
    credentials = await source(user).get()
    assert (credentials.certificate, credentials.key) == (b"CERT", b"KEY")


async def test_a_plugin_is_told_about_the_cluster_and_its_environment() -> None:
    script = (
        "import json, os; i = json.loads(os.environ['KUBERNETES_EXEC_INFO']);"
        "t = '-'.join([os.environ['A'], os.environ['B'], i['spec']['cluster']['server'],"
        " str(i['spec']['cluster']['config']['a'])]);"
        "print(json.dumps({'status': {'token': t}}))"
    )
    user = plugin(script, env=[{"name": "A", "value": "mine"}], provideClusterInfo=True)
    assert (await source(user, B="yours").get()).authorization == "Bearer mine-yours-https://k-1"


async def test_a_plugin_runs_once_until_its_token_ends_or_is_rejected(tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'runs')!r}, 'a').write('x');" + printing({"token": "t"})
    credentials = source(plugin(script))
    first = await credentials.get()
    assert await credentials.get() is first
    await credentials.get(rejected=first)
    assert (tmp_path / "runs").read_text() == "xx"
    expired = source(plugin(script.replace('"t"', '"t", "expirationTimestamp": "2020-01-01T00:00:00Z"')))
    await expired.get()
    await expired.get()
    assert (tmp_path / "runs").read_text() == "xxxx"


async def test_a_plugin_can_give_a_certificate() -> None:
    given = {"clientCertificateData": "CERT", "clientKeyData": "KEY"}
    credentials = await source(plugin(printing(given))).get()
    assert (credentials.certificate, credentials.key, credentials.authorization) == (b"CERT", b"KEY", None)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (plugin("import sys; sys.exit('please log in')"), "failed: please log in"),
        (plugin("raise SystemExit(3)"), "failed: exit code 3"),
        (plugin("print('hello')"), "did not print an ExecCredential"),
        (plugin("print('{}')"), "did not print an ExecCredential"),
        (plugin(printing({"token": "t", "expirationTimestamp": "soon"})), "did not print an ExecCredential"),
        ({"exec": {"command": "/no/such/plugin"}}, "/no/such/plugin cannot be run: No such file"),
        ({"auth-provider": {"name": "gcp"}}, "gcp was removed"),
        ({"auth-provider": {"name": "oidc"}}, "has expired"),
    ],
)
async def test_credentials_that_cannot_be_had(user: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialError, match=words):
        await source(user).get()


async def test_a_plugin_that_is_missing_says_how_to_install_it() -> None:
    with pytest.raises(CredentialError) as caught:
        await source({"exec": {"command": "/no/such", "installHint": "brew install it\n"}}).get()
    assert caught.value.hint == "brew install it"


async def test_a_plugin_that_writes_a_lot_of_stderr_is_no_deadlock() -> None:
    script = "import sys; sys.stderr.write('x' * 300000);" + printing({"token": "t"})
    assert (await source(plugin(script)).get()).authorization == "Bearer t"


def jwt(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"e30.{claims}.sig"


async def test_oidc_uses_kubectls_token_while_it_lasts() -> None:
    token = jwt(time.time() + 600)
    assert await authorization({"auth-provider": {"name": "oidc", "config": {"id-token": token}}}) == f"Bearer {token}"
    with pytest.raises(CredentialError, match="expired"):
        await authorization({"auth-provider": {"name": "oidc", "config": {"id-token": jwt(1000.0)}}})
