"""Who is who at control, by real TLS: keys, proofs, consents, and the certificates that it issues."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from meshdev.identity.keys import KeyPair, common_name, key_id
from meshdev.identity.tls import pem
from meshdev.intercept.spec import Port
from meshdev.wire import agent
from meshdev.wire.agent import Consents
from meshdev.wire.modes import PROXY
from tests.manager.claims import spec
from tests.manager.control.claimant import B, Claimant
from tests.manager.control.identities import THEIRS, agents, identity
from tests.manager.control.sidecars import (
    Control,
    agent_of,
    channel,
    control,
    envoy_of,
    hello,
    issued,
    joined,
    secured,
    sidecar,
)
from tests.manager.control.test_service import permitted
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann
from tests.waiting import until

C = spec("c", value="2")
DENIED = grpc.StatusCode.PERMISSION_DENIED


async def outcome(line: Any) -> grpc.StatusCode:
    """How a stream of an agent ends that a peer may not have. Nothing is written: that would hide the reason."""
    call = line.stream_stream(agent.METHOD)(timeout=5)
    with pytest.raises(grpc.RpcError):
        await call.read()
    return await call.code()


def is_served(mesh: Control) -> bool:
    """Whether an Envoy has a stream."""
    return any(pod._envoy is not None for pod in mesh.core.pods())


def channel_with(control: Control, key: bytes, *chain: bytes) -> Any:
    """A channel that shows these certificates."""
    shown = "".join(map(pem, chain)).encode()
    return secured(control, grpc.ssl_channel_credentials(pem(control.authority.certificate).encode(), key, shown))


# Keys


async def test_without_a_certificate_of_the_manager_no_handshake_is_completed(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim()
    async with joined(mesh):
        for who in (identity("b-2"), identity("b-1", THEIRS)):
            async with channel(mesh, who, who.certificate) as line:
                assert await outcome(line) == grpc.StatusCode.UNAVAILABLE, "that of the agent itself"
        async with channel(mesh, None) as line:
            assert await outcome(line) == grpc.StatusCode.UNAVAILABLE


async def test_a_key_that_no_session_vouches_for_begins_no_stream(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh), channel(mesh, identity("b-1", THEIRS)) as line:
        assert await outcome(line) == DENIED


@pytest.mark.filterwarnings("ignore::grpc.experimental.ExperimentalApiWarning")
async def test_a_copied_certificate_without_its_key_completes_no_handshake(mesh: Control, claimant: Claimant) -> None:
    """Signed by another key, as no library would do by mistake."""
    claimant.claim()
    own = load_pem_private_key(KeyPair.generate().private_pem, None)
    real = load_pem_private_key(identity().pair.private_pem, None)
    outcomes = []
    for key in (real, own):
        assert isinstance(key, ec.EllipticCurvePrivateKey)

        def sign(data: bytes, *_: object, key: ec.EllipticCurvePrivateKey = key) -> bytes:
            return key.sign(data, ec.ECDSA(hashes.SHA256()))

        credentials = grpc.experimental.ssl_channel_credentials_with_custom_signer(
            private_key_sign_fn=sign,
            root_certificates=pem(mesh.authority.certificate).encode(),
            certificate_chain=pem(issued(mesh, identity())).encode(),
        )
        async with joined(mesh, name="b-2"), secured(mesh, credentials) as line:
            call = line.stream_stream(agent.METHOD)(timeout=5)
            try:
                await call.write(agent.encode(hello()))
                await call.write(agent.encode(identity().consents))
                await call.read()
                outcomes.append("served")
                call.cancel()
            except grpc.RpcError as error:
                outcomes.append(error.code())
    assert outcomes == ["served", grpc.StatusCode.UNAVAILABLE]


async def test_what_an_agent_issues_with_its_own_key_completes_no_handshake(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    key = ec.generate_private_key(ec.SECP256R1())
    mine = identity("evil")
    certificate = await claimant.issued(mine.attested)
    issuer = load_pem_private_key(mine.pair.private_pem, None)
    assert isinstance(issuer, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    child = (
        x509.CertificateBuilder()
        .subject_name(common_name("child"))
        .issuer_name(x509.load_der_x509_certificate(certificate).subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=1))
        .sign(issuer, hashes.SHA256())
    ).public_bytes(Encoding.DER)
    private = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    async with joined(mesh):
        async with channel_with(mesh, private, child, certificate) as line:
            assert await outcome(line) == grpc.StatusCode.UNAVAILABLE
        async with channel_with(mesh, mine.pair.private_pem, certificate) as line:
            call = line.stream_stream(agent.METHOD)(timeout=5)
            await call.write(agent.encode(hello("evil")))
            await until(lambda: any(pod._hello and pod._hello.pod == "evil" for pod in mesh.core.pods()))
        await until(lambda: mine.key not in mesh.core._pods)
        assert {pod._hello.pod for pod in mesh.core.pods() if pod._hello} == {"b-1"}


async def test_who_is_named_no_more_begins_no_stream(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    mine = identity()
    certificate = await claimant.issued(mine.attested)
    async with envoy_of(mesh, certificate=certificate):
        await until(lambda: is_served(mesh))
    claimant.withdraw()
    await until(lambda: not mesh.core.named())
    async with channel(mesh, mine, certificate) as line:  # whose handshake is completed: it is the authority's
        assert await outcome(line) == DENIED


# Edges


async def test_a_session_that_copied_a_key_or_a_proof_reaches_nobody(mesh: Control, manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "eve") as eve:
        ours, theirs = Claimant(ann), Claimant(eve)
        ours.claim()
        key_alone = identity().with_proof("e" * 64).attested
        proof_alone = replace(identity("b-1", THEIRS).attested, proof=identity().proof)
        async with joined(mesh) as made:
            await ours.reported("acked")
            theirs.claim(C, (key_alone, proof_alone))
            async with sidecar(mesh, THEIRS) as their_own:
                await until(lambda: their_own.agent.want is not None)
                assert their_own.agent.wants() == []
                assert C.id not in made.envoy.routes() + their_own.envoy.routes()
                await until(lambda: permitted(mesh) == {20000: {"b-1"}, 20001: set()})
                theirs.claim(C, agents("b-1"))  # it has both
                assert (await theirs.report(lambda _: True)).state == "joined", "the first report that it gets"


async def test_an_agent_that_did_not_consent_is_not_reached(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with agent_of(mesh, consents=False) as one, joined(mesh, name="b-2"):
        assert (await claimant.reported("acked")).pod == "b-2"
        assert one.log == [], "nothing before it has spoken"
        await one.say(Consents(("f" * 64,)))
        await until(lambda: one.want is not None)
        assert one.wants() == []
        await until(lambda: permitted(mesh) == {20000: {"b-2"}})
        await one.say(Consents(("f" * 64, identity().proof)))
        await until(lambda: one.wants() == ["8080"])
        assert (await claimant.report(lambda _: True)).pod == "b-1"


async def test_consent_that_is_withdrawn_ends_one_session_within_a_second(mesh: Control, manager: Manager) -> None:
    other = identity().with_proof("d" * 64)
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        ours, theirs = Claimant(ann), Claimant(bob)
        ours.claim()
        async with joined(mesh) as made:
            await ours.reported("acked")
            theirs.claim(C, (other.attested,))
            await made.agent.say(Consents((identity().proof, other.proof)))
            await theirs.reported("acked", C)
            await until(lambda: permitted(mesh) == {20000: {"b-1"}, 20001: {"b-1"}})
            await made.agent.say(Consents((other.proof,)))
            await until(lambda: permitted(mesh) == {20000: set(), 20001: {"b-1"}}, seconds=1)
            await until(lambda: B.id not in made.envoy.routes(), seconds=1)
            await ours.reported("gone")
            assert C.id in made.envoy.routes()


async def test_a_session_that_withdraws_an_agent_ends_its_edge_within_a_second(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim(agents=agents("b-1", "b-2"))
    async with joined(mesh) as one, joined(mesh, name="b-2"):
        await until(lambda: permitted(mesh) == {20000: {"b-1", "b-2"}})
        claimant.agents(B, *agents("b-2"))
        await until(lambda: permitted(mesh) == {20000: {"b-2"}} and one.agent.wants() == [], seconds=1)
        claimant.withdraw()
        await until(lambda: permitted(mesh) == {}, seconds=1)


async def test_a_pod_whose_address_is_hidden_gets_no_udp_and_says_why(mesh: Control, claimant: Claimant) -> None:
    both = spec("u", Port(9090, "udp", 9090), mode=PROXY)
    claimant.claim(both)
    async with sidecar(mesh, address="10.244.0.7") as made:
        refused = await claimant.reported("nacked", both)
        assert "sees the pod as 127.0.0.1 and not as 10.244.0.7" in refused.text
        claimant.claim()
        await until(lambda: made.agent.wants() == ["8080"])


# Certificates


def subject_of(certificate: bytes) -> list[str]:
    names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


@pytest.mark.usefixtures("mesh")
async def test_a_session_gets_a_certificate_for_each_agent_with_its_own_words_in_it(manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        ours, theirs = Claimant(ann), Claimant(bob)
        ours.claim(agents=(replace(identity().attested, uid="0f-9"),))
        theirs.claim(C, agents("b-1", "b-2"))
        mine = await ours.issued(identity().attested)
        other = await theirs.issued(identity().attested, C)
        assert key_id(mine) == key_id(other) == identity().key
        assert subject_of(mine) == ["spiffe://manager-uid/ns/default/deployment/b/pod/0f-9"]
        assert subject_of(other) == ["spiffe://manager-uid/ns/default/deployment/b/pod/uid-b-1"]
        assert key_id(await theirs.issued(identity("b-2").attested, C)) == identity("b-2").key
        with Ann(manager, "eve") as eve:
            third = Claimant(eve)
            third.claim(spec("d"), agents("b-1"))
            assert await third.issued(identity().attested, spec("d")) == other, "the same one while it is fresh"


async def test_an_agent_with_an_edge_gets_what_its_session_was_given(mesh: Control, claimant: Claimant) -> None:
    claimant.claim(agents=(replace(identity().attested, uid="0f-9"),))
    async with agent_of(mesh, consents=False) as one:
        await one.say(Consents(()))
        await until(lambda: one.want is not None)
        assert one.issued is None, "without an edge there is nothing"
        await one.say(identity().consents)
        await until(lambda: one.issued is not None)
        assert one.issued is not None
        assert one.issued.authority == mesh.authority.certificate
        assert one.issued.certificate == await claimant.issued(identity().attested)
        async with envoy_of(mesh, certificate=one.issued.certificate):
            await until(lambda: is_served(mesh))


async def test_what_is_no_signing_request_gets_nothing(
    mesh: Control, claimant: Claimant, caplog: pytest.LogCaptureFixture
) -> None:
    bad = (b"DER", identity("b-2").request[:-1] + b"\0")
    claimant.claim(agents=(*(replace(identity("b-2").attested, request=each) for each in bad), identity().attested))
    assert key_id(await claimant.issued(identity().attested)) == identity().key
    assert "the agent of pod b-2 is not taken" in caplog.text
    assert mesh.core.named() == {identity().key}


async def test_the_next_certificate_comes_at_half_of_the_life_of_one(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann:
        Claimant(ann).claim()
        async with control(tmp_path, lifetime=timedelta(seconds=2)) as mesh, agent_of(mesh) as one:
            issued: list[bytes] = []

            def has_three() -> bool:
                if one.issued is not None and one.issued.certificate not in issued:
                    issued.append(one.issued.certificate)
                return len(issued) == 3

            await until(has_three)
            assert {key_id(each) for each in issued} == {identity().key}
            ends = [x509.load_der_x509_certificate(each).not_valid_after_utc for each in issued]
            later = [each - former for former, each in pairwise(ends)]
            assert all(timedelta(seconds=1) <= each <= timedelta(seconds=2) for each in later), "before it expires"


async def test_the_relay_gets_a_certificate_of_its_name(mesh: Control) -> None:
    found = mesh.relay.identity
    assert found is not None
    assert found.authority == mesh.authority.certificate
    assert key_id(found.certificate) == mesh.relay.pair.key_id
    names = x509.load_der_x509_certificate(found.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["relay.meshdev"]
