"""At least one value of every message, with every field set, for the tests that go through all of them.

The bytes that protocol 2 makes of them are in ``recorded``: one line each, written before messages were declared.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final

from meshdev.wire import access, agent, control, intercepts, manager, watching
from meshdev.wire import session_api as api
from meshdev.wire import session_intercepts as stream
from meshdev.wire.counts import Counts, InterceptCounts, PassthroughTotals
from meshdev.wire.helper import answers, lines, requests
from meshdev.wire.modes import MESH, PROXY

ID: Final = "0123456789abcdef0123456789abcdef"
KEY: Final = ID * 2
SERVER: Final = IPv4Address("192.0.2.1")
ROUTE: Final = IPv4Network("10.96.0.0/16")

HELPER_REQUESTS: Final[dict[str, requests.Request]] = {
    "open_tun": requests.OpenTun(2, True),
    "set_address": requests.SetAddress(IPv4Address("198.18.0.7"), 1450),
    "set_routes": requests.SetRoutes((ROUTE, IPv4Network("10.1.0.0/24"))),
    "add_routes": requests.AddRoutes((IPv4Network("10.9.8.7/32"),)),
    "dns_sockets": requests.DnsSockets((SERVER, IPv6Address("fe80::1%eth0"))),
    "upstream_tcp": requests.UpstreamTcp(SERVER),
    "set_dns": requests.SetDns(("ns.svc.cluster.local",), (".", "svc")),
    "set_relays": requests.SetRelays((requests.RelayTarget(20001, "udp", IPv4Address("127.0.0.1"), 8080),)),
    "find_translations": requests.FindTranslations(),
    "heartbeat": requests.Heartbeat(),
    "close": requests.Shutdown(),
}
HELPER_RESULTS: Final[dict[str, answers.Result | lines.HelperFailure]] = {
    "result_done": answers.Acknowledged(),
    "tun_opened": answers.TunOpened("meshdev0", 103),
    "address_set": answers.AddressSet(True, None),
    "address_set_unguarded": answers.AddressSet(False, "no nft"),
    "routes_set": answers.RoutesSet((ROUTE,), (answers.RefusedRoute(IPv4Network("10.1.0.0/24"), "File exists"),)),
    "dns_opened": answers.DnsOpened(
        (
            answers.ListenerAddress(IPv4Address("127.0.0.1"), 5300, SERVER),
            answers.ListenerAddress(IPv6Address("::1"), 5301, None),
        ),
        (answers.Upstream(SERVER, 4),),
        "no nft",
    ),
    "dns_set": answers.DnsSet("resolved did not answer"),
    "beat": answers.Beat(True, (SERVER,), ("a.b",), ("tun was removed",), ("it was set down",)),
    "translations": answers.Translations(("Docker translates 10.96.0.0/16",)),
    "fault": lines.HelperFailure("route", "no way", "try"),
    "fault_without_hint": lines.HelperFailure("laptop", "é \n", None),
}
GREETINGS: Final[dict[str, lines.Greeting | lines.HelperFailure]] = {
    "greeting": lines.Greeting(
        7, 1000, "redirect", "stub=no", (SERVER, IPv6Address("fe80::1%eth0")), ("home.example",)
    ),
    "greeting_fault": lines.HelperFailure("already-connected", "connected to dev", None),
}

INTERCEPT: Final = stream.InterceptStatus(
    id=ID,
    target="deployment/b",
    namespace="default",
    mode=MESH,
    match="a=1",
    ports=("8080:80/http", "9090:9090/udp"),
    strategy="ephemeral",
    state="active",
    fallback=True,
    detached=False,
    acked=1,
    total=2,
    counts=InterceptCounts(matched=3, fell_back=2, errors=1, older=4),
    local=(stream.LocalPort(8080, "tcp", up=True), stream.LocalPort(9090, "udp", up=False)),
    notes=("4 older connections still go to the original",),
    age_s=1.5,
    url="http://b.default/",
    pending_listeners=(stream.PendingListener(9999, "tcp", 1),),
    identities=(stream.PodIdentity("b-1", "spiffe://uid-1/ns/default/deployment/b/pod/uid-b-1"),),
)
CONNECTED: Final = api.Status(
    state="connected",
    context="dev",
    namespace="default",
    server="https://10.0.0.1:6443",
    address="198.18.0.1",
    carrier="spdy",
    carriers=(api.CarrierStatus("spdy", up=True, rtt_ms=0.4), api.CarrierStatus("spdy", up=False)),
    routes=("10.96.0.0/16", "10.244.0.0/24"),
    dns=api.DnsStatus("redirect", "10.96.0.10", ("default.svc.cluster.local",), ("cluster.local",)),
    manager_namespace="default",
    manager_pod="meshdev-traffic-manager-1",
    session_pid=100,
    helper_pid=101,
    intercepts=(INTERCEPT,),
    leftovers=("route 10.0.0.0/8",),
    since_s=12.5,
    notes=("10.0.0.0/8 is yours: é",),
)
OPTIONS: Final[dict[str, api.ConnectOptions]] = {
    "options_default": api.ConnectOptions(),
    "options": api.ConnectOptions(
        kubeconfig="/a:b",
        context="c",
        directory="/home/x",
        namespace="n",
        as_user="u",
        request_timeout=2.5,
        manager_namespace="m",
        image="i:1",
        image_pull_secret="pull",  # noqa: S106 -- the name of one
        carrier="websocket",
        carriers=3,
        also=("10.0.0.0/8",),
        never=("10.1.0.0/16",),
        upgrade=True,
        unguarded=True,
        debug=True,
    ),
    "options_odd_bytes": api.ConnectOptions(kubeconfig=b"/home/\xff/config".decode(errors="surrogateescape")),
}
SESSION_REQUESTS: Final[dict[str, api.Request]] = {
    "status": api.StatusRequest(),
    "status_settled": api.StatusRequest(settled=True),
    "disconnect": api.DisconnectRequest(),
    "leave": stream.LeaveRequest("svc/b", "team-1"),
    "leave_all": stream.LeaveRequest(),
    "intercept": stream.InterceptRequest(
        target="deploy/b",
        namespace="team-1",
        mode=MESH,
        headers=("a=1", "x~[0-9]+"),
        path_prefix="/v1",
        method="get",
        baggage=("user=me",),
        tracestate=("t=1",),
        ports=("8080:http",),
        strategy="patch",
        takeover=True,
        reset_existing=True,
        fallback=False,
        detach=True,
    ),
    "intercept_default": stream.InterceptRequest(target="svc/b", mode=PROXY),
}
SESSION_ANSWERS: Final[dict[str, api.Answer | api.Failed]] = {
    "answer_status": CONNECTED,
    "answer_disconnected": api.Status(state="disconnected"),
    "answer_left": ("deployment/b in namespace default",),
    "answer_nothing": None,
    "answer_error": api.Failed("forbidden", "create pods/portforward", "meshdev rbac", 20),
}
EVENTS: Final[dict[str, api.Event]] = {
    "step": api.Step("cluster", "Kubernetes 1.35", 0.25),
    "note": api.Note("overlap"),
    "wait": api.Wait("pulling image"),
    "done": api.Done(CONNECTED),
    "up": stream.Up(INTERCEPT),
    "live": stream.Live(INTERCEPT),
    "left": stream.Left(),
    "error": api.Failed("forbidden", "no", None, 20),
}

_RELAY: Final = intercepts.Relay(80, "tcp", 20001)
_AGENT: Final = intercepts.AttestedAgent(b"DER", KEY, "b-1", "u-1")
_REPORT: Final = intercepts.Report(
    ID, "b-1", "acked", "é", InterceptCounts(5, 1, 2, 3), 1, "open", ("8080", "9090/udp")
)
_RECORD: Final = access.AccessRecord(1, SERVER, 80, "HTTP/2", "laptop", 250, "GET", "b", "/a", 200, intercept=ID)
TUNNEL: Final[dict[str, control.Message]] = {
    "hello": control.Hello(
        1, 2, ID, ID, "ann@laptop", 103, (IPv4Network("198.18.0.0/16"),), IPv4Address("198.18.0.7"), 1, 2, True
    ),
    "welcome": control.Welcome(
        2, IPv4Address("198.18.0.7"), 1450, 103, (SERVER,), ("svc.cluster.local",), "m-1", "default", SERVER
    ),
    "tunnel_close": control.Close("busy", "others are here", 3),
    "sessions": control.Sessions((control.SessionInfo("bäb@laptop", SERVER, 12),)),
    "tunnel_intercept": intercepts.Intercept(ID, '{"a":1}', True, 7, ("b-9",)),
    "tunnel_agents": intercepts.AgentKeys(ID, 3, (KEY,), 8),
    "tunnel_attested": intercepts.Agents(ID, 3, (_AGENT,), 8),
    "tunnel_identity": control.ManagerIdentity(b"DER"),
    "withdraw": intercepts.Withdraw(ID, 8),
    "local": intercepts.Local(ID, 80, "tcp", True, 9),
    "relays": intercepts.Relays(ID, (_RELAY,)),
    "relays_refused": intercepts.Relays(ID, (), intercepts.ClaimRefusal("full", "too many")),
    "report": _REPORT,
    "issued": intercepts.Issued(ID, KEY, b"DER"),
    "watch": watching.WatchClaim(ID, access.Watch(on=True, all=True)),
    "watch_no_more": watching.WatchClaim(ID, access.Watch()),
    "records": watching.ClaimRecords(ID, "b-1", access.AccessRecords((_RECORD,), 3), 24),
    "records_dropped": watching.ClaimRecords(ID, "b-1", access.AccessRecords((), 1)),
}
TO_CONTROL: Final[dict[str, manager.ToControl]] = {
    "pod": manager.ManagerAddress(SERVER),
    "claim": manager.Claimed(
        ID, '{"a":1}', "ann", SERVER, (_RELAY,), (manager.ListeningPort(80, "tcp"),), True, ("b-9",)
    ),
    "agents": intercepts.Agents(ID, 3, (_AGENT,), 8),
    "withdrawn": manager.Withdrawn(ID),
    "synced": manager.Synced(),
    "seen": manager.Seen("joined", "ann", SERVER),
    "watched": watching.WatchClaim(ID, access.Watch(on=True, values=True)),
}
TO_TUNNEL: Final[dict[str, manager.ToTunnel]] = {
    "manager_identity": control.ManagerIdentity(b"DER"),
    "allow": manager.Allow(20001, (SERVER,), True),
    "tunnel_report": manager.PodReport(ID, "b-1", False, b'{"id":"1"}'),
    "certificate_issued": manager.CertificateIssued(ID, KEY, b'{"id":"1"}'),
    "tunnel_records": manager.RecordsOfClaim(ID, b'{"id":"1"}'),
}

_HTTP: Final = agent.PodPort(8080)
_UDP: Final = agent.PodPort(9090, "udp")
FROM_AGENT: Final[dict[str, agent.FromAgent]] = {
    "agent_hello": agent.AgentHello("b-1", "u-1", "default", SERVER, (agent.Probe(8080, "/healthz"),)),
    "consents": agent.Consents((KEY,)),
    "listen": agent.Listen({_HTTP: 15801, _UDP: 15802}, "/tmp/meshdev-ab_12"),
    "state": agent.State(
        (_HTTP,),
        ((agent.PodPort(7000), "no-listener"),),
        ((_HTTP, 3),),
        ((ID, Counts(5, 1, 0)),),
        ((_UDP, Counts(2, 0, 0)),),
        ((20001, "open"),),
    ),
    "state_applied": agent.State((_HTTP,), applied=3),
    "state_counted": agent.State(
        (_HTTP,), envoys=2, passthrough=PassthroughTotals(9, 8, 7, 6, (("lost", 5),), (("upgraded", 4),))
    ),
}
FROM_CONTROL: Final[dict[str, agent.FromControl]] = {
    "want": agent.Want((agent.Wanted(_HTTP, "http", MESH, True),)),
    "redirect": agent.Redirect((_HTTP, _UDP)),
    "redirect_claims": agent.Redirect(
        (_HTTP, _UDP),
        (
            agent.DecidedClaim((_HTTP,), '{"headers":[]}'),
            agent.DecidedClaim((_HTTP, agent.PodPort(9090))),
            agent.DecidedClaim((agent.PodPort(7000),), whole=True),
        ),
    ),
    "redirect_numbered": agent.Redirect((_HTTP,), (agent.DecidedClaim((_HTTP,)),), 3),
    "try": agent.ProbeRelays((20001, 20002), SERVER),
    "issued_certificate": agent.IssuedCertificate(b"DER", b"CA"),
}
