"""The environment of ``run --env-from``: this machine's, overlaid by that of a workload's container."""

import os
from collections.abc import Mapping
from dataclasses import replace

from meshdev.cli import api, options
from meshdev.cli import workload_reading as reading
from meshdev.cli.connect import check_cluster
from meshdev.environment.local import overlaid
from meshdev.errors import AlreadyConnectedError, ConfigError
from meshdev.kube.kubeconfig import Options, load
from meshdev.state import Paths
from meshdev.wire.session_api import ConnectOptions


def environment(
    paths: Paths, connection: options.Connection, namespace: str | None, target: str, container: str | None
) -> Mapping[str, str]:
    """What the program gets; what is missing of it, and what is not taken, is noted on stderr.

    *namespace* of the target; without one that of this machine's connection, where it is the one that is wanted, else
    the context's. Raises ConfigError where the kubeconfig here is none of the connection's cluster.
    """
    return laid_over(where(paths, connection.options(namespace), connection.wanted()), target, container)


def laid_over(cluster: Options, target: str, container: str | None = None) -> Mapping[str, str]:
    """The same of a target in the namespace of *cluster*."""
    found = reading.read_variables(cluster, target, container)
    made, kept = overlaid(os.environ, found.variables.values)
    taken = len(found.variables.values) - len(kept)
    of_the_machine = f"; {', '.join(kept)} as on this machine" if kept else ""
    reading.note(f"{taken} environment variables of {found.where}{of_the_machine}")
    reading.note_missing(found.variables.missing)
    return made


def where(paths: Paths, given: Options, wanted: ConnectOptions) -> Options:
    """The cluster that the program will be connected to. Raises ConfigError as above."""
    session = api.find(paths)
    if session is None or session.status is None:
        return given
    status = session.status
    try:
        check_cluster(status, wanted)
    except AlreadyConnectedError:
        return given  # the program gets a connection of its own, or connecting says so
    context = given.context or status.context
    asked = replace(given, context=context, namespace=given.namespace or status.namespace, ssh=given.ssh or status.ssh)
    if status.server and (server := load(asked).server) != status.server:
        raise ConfigError(
            f"this machine is connected to {status.server}, and context {context} of the kubeconfig is {server}",
            hint="name the kubeconfig of the connection with --kubeconfig",
        )
    return asked
