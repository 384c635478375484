"""`up`, `down` and `restart`: the order of things."""

import compileall
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import (
    addresses,
    binaries,
    cgroups,
    cluster,
    components,
    images,
    kinds,
    laptops,
    machine,
    mounts,
    network,
    packages,
    power,
    processes,
    resolved,
)
from tests.cluster.hashing import tree_hash
from tests.cluster.paths import CHECKOUT, DATA, RUN, SOURCES
from tests.cluster.progress import note, step
from tests.cluster.run import TestbedError
from tests.cluster.state import State, locked

_WAN = "wan"


def up(arguments: Sequence[str] = ()) -> None:
    """Bring up what is not up, in the order that keeps slow things side by side. ARGUMENTS are kinds.parse's."""
    wanted = kinds.parse(arguments)
    os.umask(0o022)
    with locked() as state:
        kind = kinds.choose(kinds.running(state.facts), wanted)
        packages.install()
        packages.kubectl()
        packages.resolved_root()
        programs, pause = binaries.programs(kind), binaries.build(binaries.PAUSE)
        built = [images.build_pause(pause), images.build_sample(), images.build_manager()]
        machine.prepare(state)
        _network(state, kind)
        with step("cluster: containerd, etcd, API server"):
            cluster.write_configuration(kind)
            cluster.ensure_early(state, kind, programs)
        _import(state, kind, [image for image in built if image is not None])
        with step("cluster: node" if kind.nodes == 1 else "cluster: nodes"):
            cluster.wait_component(state, kind, "apiserver")
            cluster.ensure_late(state, kind, programs)
        _laptops(state)
        _compile()
        with step("cluster: sample application"):
            cluster.ensure_sample(state, kind, programs.support, images.sample())
        note(f"testbed: up ({kind})")


def _network(state: State, kind: kinds.ClusterKind) -> None:
    if not network.is_up(state, kind):
        with step("network: namespaces and cables"):
            _stop_everything(state)  # a cluster without its network is no use: begin anew
            _remove(DATA)
            state.set_fact(kinds.FACT, kind.as_fact())
            network.create(state, kind)
    for node in addresses.nodes(kind):
        if node != addresses.FIRST_NODE:
            power.plug(node)  # it may be without power still


def _import(state: State, kind: kinds.ClusterKind, built: Sequence[images.Image]) -> None:
    for node in addresses.nodes(kind):
        for image in built:
            if not cluster.has_image(state, node, image):
                with step(f"cluster: import image {image.name} on {node.name}"):
                    cluster.import_image(state, node, image)


def _laptops(state: State) -> None:
    with step("laptops and wan"):
        processes.ensure(state, _wan_daemon())
        for number in addresses.LAPTOPS:
            laptops.ensure(state, number)


def _compile() -> None:
    """Byte code for meshdev: the developer's account cannot write it, and would compile at each start."""
    compileall.compile_dir(CHECKOUT / "meshdev", quiet=2)


def _wan_daemon() -> processes.Daemon:
    """DNS and web of the wan. The sources are part of the fingerprint: another checkout's version replaces it."""
    return processes.Daemon(
        _WAN,
        (os.path.realpath(sys.executable), "-m", "tests.cluster.wan"),
        processes.in_network(addresses.WAN_NAMESPACE),
        env={"PYTHONPATH": str(SOURCES.parents[1])},
        inputs=(tree_hash(SOURCES / "wan"), tree_hash(SOURCES / "sample")),
        stop_seconds=1,
    )


def restart(name: str) -> None:
    """One component of the running cluster, or a laptop's systemd-resolved."""
    with locked() as state, step(f"restart {name}"):
        for number in resolved.LAPTOPS:
            if name == resolved.name(number):
                resolved.restart(state, number)
                return
        kind = _running(state)
        cluster.restart(state, kind, binaries.programs(kind), name)


def stop(name: str) -> None:
    """A node, as if its power failed."""
    with locked() as state, step(f"stop {name}"):
        power.off(state, power.find(_running(state), name))


def start(name: str) -> None:
    """A node that was stopped; nothing happens where it runs."""
    with locked() as state, step(f"start {name}"):
        kind = _running(state)
        power.on(state, kind, binaries.programs(kind), power.find(kind, name))


def _running(state: State) -> kinds.ClusterKind:
    kind = kinds.running(state.facts)
    if kind is None:
        raise TestbedError("the testbed is not up: python -m tests.cluster up")
    return kind


def down() -> None:
    """Undo everything, in the order that leaves nothing behind when it is interrupted and called again."""
    with locked() as state:
        with step("stop everything"):
            _stop_everything(state)
        with step("put the machine back"):
            machine.restore(state)
            for folder in (DATA, RUN):
                _remove(folder)
        note("testbed: down")


def _stop_everything(state: State) -> None:
    for number in addresses.LAPTOPS:
        laptops.remove(state, number)
    for name in (*reversed(components.names(kinds.running(state.facts) or kinds.DEFAULT)), _WAN):
        processes.stop(state, name, 3)
    cgroups.kill()
    mounts.unmount_below(DATA, RUN)
    cgroups.remove()
    network.destroy(state)
    state.facts.clear()
    state.processes.clear()
    state.save()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
