"""Composition root: makes classes remote, and wires actors, endpoint and monitor. Decides nothing itself."""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric

from actors.aggregator import AggregatorActor
from actors.config import HttpConfig, ServerConfig
from actors.errors import ServerError
from actors.evaluator import Evaluator
from actors.gateway_actor import NAMESPACE, Calls, GatewayActor
from actors.monitoring.monitor import Monitor
from actors.ray_cluster import ray_cluster
from actors.roster import VehicleStatus
from actors.startup import (
    initial_beside,
    require_broker,
    set_aside,
    with_keys,
    with_ports,
    with_session,
)
from fleetfl import FleetflError
from fleetfl.protocol.addresses import url_of
from fleetfl.protocol.messages import Snapshot
from fleetfl.releases.generations import BEFORE_ALL
from fleetfl.storage.scratch import scratch
from fleetfl.storage.state_lock import only_for_owner, state_lock

log = logging.getLogger(__name__)

APP = "fleetfl"

LASTING = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
"""Ray options that restart a killed actor and repeat its pending calls, also `run`, which never ends."""


BUILD_AGAIN_S = 1.0
"""Seconds between two tries to build an actor that Ray restarted."""
LAST_CHECKPOINT_S = 20.0
"""Seconds that a stopping server waits for the last checkpoint."""
ANSWER_S = 3.0
"""Seconds that the monitor waits for a part's answer."""


class Server:
    """A running server; `check` raises once a part has ended that Ray does not build again."""

    def __init__(
        self, config: ServerConfig, actors: dict[str, Any], running: dict[str, Any], endpoint: Any
    ) -> None:
        self.config, self.actors, self.running, self.endpoint = config, actors, running, endpoint
        http = config.http
        self.url = None if http is None else url_of(http.host, http.port)
        """URL of the endpoint; None without one."""

    def check(self) -> None:
        """Raises ServerError naming the actor that ended, and why."""
        import ray
        from ray.exceptions import RayError

        ended, _ = ray.wait(list(self.running.values()), num_returns=1, timeout=0)
        for name, reference in self.running.items():
            if reference in ended:
                try:
                    ray.get(reference)
                except RayError as error:
                    cause = getattr(error, "cause", None) or error
                    raise ServerError(f"{name} ended: {cause}") from error
                raise ServerError(f"{name} ended without an error")

    def stop(self) -> None:
        """Cancel the running actors so that they disconnect cleanly; those that are late are killed later."""
        import ray
        from ray.exceptions import RayError

        running = list(self.running.values())
        with contextlib.suppress(RayError):  # such as that the cluster is gone
            for reference in running:
                ray.cancel(reference)
            ray.wait(running, num_returns=len(running), timeout=ANSWER_S)
            # It writes its last checkpoint: without that the next start counts rows again.
            ray.wait([self.running["aggregator"]], timeout=LAST_CHECKPOINT_S)

    def newest(self) -> Snapshot:
        """The newest release, whole."""
        import ray

        return ray.get(self.actors["aggregator"].wait_for_version.remote(BEFORE_ALL), timeout=30)

    def measured(self) -> dict[str, list[Metric] | None]:
        """Metrics by part of the server; None for a part that does not answer."""
        parts: dict[str, list[Metric] | None] = dict.fromkeys(self.actors)
        parts |= self._asked(self.actors, "measured")
        if self.config.http is not None:
            parts |= self._replicas(self.config.http.replicas)
        return parts

    def _replicas(self, expected: int) -> dict[str, list[Metric] | None]:
        try:
            answers = self.endpoint.broadcast("measured").results(timeout_s=ANSWER_S)
        except Exception as failed:  # Serve, asyncio or Ray: whatever it is, the page says so
            log.warning("the endpoint's replicas do not answer: %s", failed)
            answers = []
        answers += [None] * (expected - len(answers))
        return {f"replica {number}": answer for number, answer in enumerate(answers)}

    def fleet(self) -> dict[str, VehicleStatus]:
        """Status of the vehicles by name, as far as their gateways answer."""
        gateways = {n: actor for n, actor in self.actors.items() if n.startswith("gateway")}
        found: dict[str, VehicleStatus] = {}
        for sightings in self._asked(gateways, "sightings").values():
            found |= sightings
        return found

    def _asked(self, actors: dict[str, Any], method: str) -> dict[str, Any]:
        """The answers by name of the actors that answer in time."""
        import ray
        from ray.exceptions import RayError

        # No retries: the call does not wait for an actor that is away.
        calls = {
            name: getattr(actor, method).options(max_task_retries=0).remote()
            for name, actor in actors.items()
        }
        ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=ANSWER_S)
        answers = {}
        for name, call in calls.items():
            if call in ready:
                with contextlib.suppress(RayError):
                    answers[name] = ray.get(call)
        return answers


def _silent(step: str) -> None:
    """Report no step."""


@contextlib.contextmanager
def serving(config: ServerConfig, *, tell: Callable[[str], None] = _silent) -> Iterator[Server]:
    """Run a server inside the context; `tell` is called with a sentence for each step of the start.

    Raises ServerError if a port is taken or the endpoint does not come up, TenancyError if the state
    folder is another server's, ModelError or AdapterFileError for an unfit checkpoint, IdentityError for
    unfit keys, TransportError for an unreachable broker. What an earlier server left in the folder is
    then as it was.
    """
    config = config.model_copy(update={"state": config.state.absolute()})
    with state_lock(config.state), scratch() as folder, _serving(config, folder, tell) as server:
        yield server


@contextlib.contextmanager
def _serving(config: ServerConfig, folder: Path, tell: Callable[[str], None]) -> Iterator[Server]:
    config = with_ports(with_keys(config))
    with initial_beside(config) as initial:
        tell("broker: looking whether it answers")
        require_broker(config.transport, config.fleet)
        with_session(config)
        with ray_cluster(config, folder, tell):
            tell("the initial model")
            config = initial()
            if not config.resume:  # last of all: nothing is moved for a server that cannot start
                aside = set_aside(config)
                if aside is not None:
                    tell(f"anew: what was there before, bans too, is in {aside}")
            with _wired(config, tell) as server:
                yield server


@contextlib.contextmanager
def _wired(config: ServerConfig, tell: Callable[[str], None]) -> Iterator[Server]:
    actors, calls = start_actors(config, tell)
    # First of all: updates need no endpoint, and that takes longest to come up.
    running = {name: actor.run.remote() for name, actor in actors.items()}
    endpoint = None
    if config.http is not None:
        tell(f"endpoint: {config.http.replicas} of the model behind {config.http.proxy}")
        endpoint = deploy(config, config.http, calls)
    server = Server(config, actors, running, endpoint)
    monitor = Monitor(server.url, server.measured, server.fleet)
    with monitor.answering(config.monitor.host, config.monitor_port):
        try:
            yield server
        finally:
            server.stop()


def start_actors(
    config: ServerConfig, tell: Callable[[str], None] = _silent
) -> tuple[dict[str, Any], Calls]:
    """Aggregator, gateways and evaluator by name, built and answering. Raises ServerError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The state folder is on this machine. Endpoint replicas need none, and may go wherever there is room.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = LASTING | {"scheduling_strategy": here}
    calls = Calls(f"aggregator-{secrets.token_hex(4)}")  # a cluster may have several servers
    named = ray.remote(lasting(AggregatorActor)).options(
        **options, name=calls.name, namespace=NAMESPACE
    )
    aggregator = named.remote(config)
    actors: dict[str, Any] = {"aggregator": aggregator}
    for number in range(config.num_partitions):
        gateway = ray.remote(lasting(GatewayActor)).options(**options)
        actors[f"gateway {number}"] = gateway.remote(config, number, calls)
    if config.held_out is not None:
        evaluator = ray.remote(lasting(Evaluator)).options(**options)
        actors["evaluator"] = evaluator.remote(config, calls.wait_for_version)
    for name, actor in actors.items():
        tell(name)
        require_up(actor, name)
    return actors, calls


def lasting(kind: type) -> type:
    """A subclass for restartable actors: rebuilt after a crash it waits for what it needs, such as a disk.

    Ray gives up an actor whose constructor raises. At the server's start it does raise.
    """

    class Lasting(kind):
        """Waits in its constructor while it cannot be rebuilt after a crash."""

        def __init__(self, *arguments: Any) -> None:
            import ray

            only_for_owner()
            while True:
                try:
                    super().__init__(*arguments)
                    return
                except FleetflError as unfit:
                    if not ray.get_runtime_context().was_current_actor_reconstructed:
                        raise
                    log.error("%s cannot go on yet: %s", kind.__name__, unfit)
                time.sleep(BUILD_AGAIN_S)

    Lasting.__name__ = Lasting.__qualname__ = kind.__name__
    return Lasting


def deploy(config: ServerConfig, http: HttpConfig, calls: Calls) -> Any:
    """Deploy the endpoint; gives its handle once it answers. Raises ServerError if it does not come up."""
    from ray import serve  # a second and a half, and not every server has an endpoint
    from ray.exceptions import RayError

    from actors.serving.app import ServedModel  # as above

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deployment: Any = serve.deployment(
        serve.ingress()(ServedModel),
        name="ServedModel",
        num_replicas=http.replicas,
        ray_actor_options={"num_cpus": 0.01},  # what needs nothing is not spread over the nodes
        max_ongoing_requests=4096,  # the replica has bounds of its own; uploads hold up nobody
        health_check_period_s=2,
        graceful_shutdown_timeout_s=2,
        logging_config={"enable_access_log": False},
    )
    http_options = {"host": http.host, "port": http.port}
    try:
        serve.start(
            proxy_location="HeadOnly",  # replicas on other nodes are reached through it
            http_options=http_options,
            logging_config={"log_level": "WARNING"},
        )
        return serve.run(
            deployment.bind(config, calls.wait_for_version), name=APP, route_prefix="/"
        )
    except (RuntimeError, RayError) as failed:
        raise ServerError(f"the endpoint did not come up: {failed}") from failed


def require_up(actor: Any, name: str, patience_s: float = 120.0) -> None:
    """Raises ServerError, with what its constructor raised, if the actor does not come up."""
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(actor.ping.remote(), timeout=patience_s)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise ServerError(f"{name} did not start: {cause}") from error


def run_until_stopped(server: Server, *, every_s: float = 1.0) -> None:
    """Check the server every `every_s` seconds; ends only by ServerError or KeyboardInterrupt."""
    while True:
        server.check()
        time.sleep(every_s)
