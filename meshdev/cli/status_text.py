"""The status of the connection for people."""

from meshdev.cli.render import NAME_WIDTH
from meshdev.text import age, visible
from meshdev.wire.session_api import Status


def status_text(status: Status) -> str:
    """The status for people: what is known, a line each."""
    lines = [_headline(status)]
    lines += [f"  {name:<{NAME_WIDTH}} {visible(value)}" for name, value in _details(status) if value]
    lines += [f"  {name:<{NAME_WIDTH}} {value}" for name, value in _intercepts(status)]
    lines += [f"note: {visible(note)}" for note in status.notes]
    if status.leftovers:
        lines.append("Left over from a connection that crashed:")
        lines += [f"  {leftover}" for leftover in status.leftovers]
        lines.append("`meshdev restore` removes it.")
    return "\n".join(lines)


def _intercepts(status: Status) -> list[tuple[str, str]]:
    if not status.intercepts:
        return []
    from meshdev.cli import intercept_text  # noqa: PLC0415 -- only where there are some

    return [
        pair
        for each in status.intercepts
        for pair in (("intercept", intercept_text.line(each)), *intercept_text.identities(each))
    ]


def _headline(status: Status) -> str:
    where = f" to {status.context}" if status.context else ""
    server = f" ({status.server})" if status.server else ""
    namespace = f", namespace {status.namespace}" if status.namespace else ""
    state = "Connected (degraded)" if status.state == "degraded" else status.state.capitalize()
    return f"{state}{where}{server}{namespace}"


def _details(status: Status) -> list[tuple[str, str]]:
    up = sum(carrier.up for carrier in status.carriers)
    pool = f"{up} of {len(status.carriers)} up" if status.carriers else ""
    rtt = [carrier.rtt_ms for carrier in status.carriers if carrier.rtt_ms is not None]
    fastest = f"{min(rtt):.1f} ms" if rtt else ""
    dns = status.dns
    names = f"{', '.join(dns.domains)} ({dns.integration}, nameserver {dns.nameserver})" if dns else ""
    manager = f"{status.manager_namespace}/{status.manager_pod}" if status.manager_pod else ""
    pids = (("session", status.session_pid), ("helper", status.helper_pid))
    return [
        ("ssh", status.ssh or ""),
        ("since", "" if status.since_s is None else age(status.since_s)),
        ("address", status.address or ""),
        ("carrier", ", ".join(part for part in (status.carrier, pool, fastest) if part)),
        ("routes", ", ".join(status.routes)),
        ("names", names),
        ("manager", manager),
        ("metrics", status.metrics or ""),
        ("socks", f"socks5h://{status.socks}, http://{status.socks}" if status.socks else ""),
        ("otlp", status.otlp or ""),
        ("processes", ", ".join(f"{name} {pid}" for name, pid in pids if pid)),
    ]
