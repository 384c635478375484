"""Whether datagrams of a pod can be let through to relays: all that they show is where they come from. Pure."""

from ipaddress import IPv4Address

from meshdev.wire.agent import AgentHello


def hidden_address(hello: AgentHello | None, peer: IPv4Address | None) -> str:
    """Why not, where its agent's stream comes from *peer*; empty where they can, or nothing is known of it."""
    if hello is None or peer is None or peer == hello.address:
        return ""
    return (
        f"UDP ports cannot be intercepted here: the manager sees the pod as {peer} and not as {hello.address}, because"
        " something in the cluster replaces source addresses"
    )
