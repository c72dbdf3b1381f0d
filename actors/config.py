"""Settings of the server: what the fleet shares, and the part `server`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from fleetfl.aggregators import AnyAggregator
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.closed_form import Config as ClosedFormConfig
from fleetfl.codecs import AnyCodec
from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.config import Section
from fleetfl.defences.influence import Config as ClipConfig
from fleetfl.defences.rate_limits import Config as LimitsConfig
from fleetfl.events.event_log import Config as EventsConfig
from fleetfl.fleet_config import FleetConfig
from fleetfl.protocol.addresses import Host, is_ipv6, url_of
from fleetfl.protocol.signing import KeysConfig
from fleetfl.registry.registry import Registry
from fleetfl.registry.retention import Config as RetentionConfig
from fleetfl.server_optimizers import AnyServerOptimizer
from fleetfl.server_optimizers.sgd import Config as SGD
from fleetfl.storage.journal import Config as JournalConfig
from fleetfl.storage.journal import path_in


class HttpConfig(Section):
    """The endpoint that perception engineers query."""

    host: Host = "127.0.0.1"
    """Address that the endpoint listens on; `0.0.0.0` is every IPv4 interface."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """TCP port; 0 finds a free one."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model, one processor each."""
    proxy: Literal["haproxy", "python"] = "haproxy"
    """Ray Serve's front: HAProxy is about ten times faster on image bodies and needs Linux."""
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Larger request bodies are refused (413)."""
    max_pixels: int = Field(default=32_000_000, ge=4096)
    """Larger pictures are refused (400) before they are unpacked."""
    body_timeout_s: float = Field(default=15.0, gt=0)
    """A request's body has to be there after so long (408)."""
    answer_timeout_s: float = Field(default=10.0, gt=0)
    """A picture whose turn has not come after so long is refused (503), before it is unpacked and again
    before it is classified. A model that is busy for longer makes its replica say that it is not ready."""
    max_waiting: int = Field(default=64, ge=1)
    """Pictures that wait for their turn in a replica; further ones are refused at once (503)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the served model; `auto` takes bfloat16 where the processor has it."""

    @model_validator(mode="after")
    def _is_served(self) -> "HttpConfig":
        if is_ipv6(self.host) and self.proxy == "haproxy":
            raise ValueError(
                f"host {self.host}: HAProxy is set up for IPv4 alone by Ray Serve; IPv6 needs `proxy: python`"
            )
        return self


class MonitorConfig(Section):
    """`/metrics` and `/fleet`: how the server is, for whoever runs it. Not for the public."""

    host: Host = "127.0.0.1"
    """Address that the monitor listens on; it has no login, so keep it off public networks."""
    port: int | None = Field(default=None, ge=0, le=65_535)
    """TCP port, 0 for a free one; None is the one after the endpoint's."""


class RayConfig(Section):
    """Where the actors run."""

    address: str | None = None
    """A Ray cluster, made with `ray start`, of which this machine is a node: gateways, aggregator and
    evaluator run here, replicas of the endpoint on any node. None starts one for this server alone."""
    object_store_bytes: int = Field(default=256 * 2**20, ge=80 * 2**20)
    """Shared memory of a cluster of our own."""


AROUND = {
    "transport",
    "num_partitions",
    "state",
    "resume",
    "journal",
    "checkpoint_s",
    "registry",
    "keys",
    "initial",
    "max_in_flight",
    "max_in_flight_bytes",
    "limits",
    "held_out",
    "http",
    "monitor",
    "events",
    "ray",
}
"""Settings that no bit of a release follows from."""


class ServerConfig(FleetConfig):
    state: Path
    """Folder for events.jsonl and what the server keeps: updates (`journal`), the model (`checkpoints`), its
    releases (`registry`), the keys of its vehicles (`keys`), its own (`key.pem`), and that one's public half
    for the vehicles (`server.pub`). Gateways and aggregator need it on one machine."""
    resume: bool = True
    """Go on from what `state` holds; false sets that aside and begins with release 0."""
    journal: JournalConfig = JournalConfig()
    """How long updates are kept that were counted."""
    checkpoint_s: float = Field(default=2.0, ge=0)
    """Seconds between checkpoints while updates come; what came since is counted again after a crash."""
    registry: RetentionConfig = RetentionConfig()
    """Which releases stay on disk."""
    keys: KeysConfig = KeysConfig()
    """Whose updates are taken."""
    initial: Path | None = None
    """Adapter and head of release 0 (safetensors, as `adapter.safetensors` of a run); None starts
    from the backbone with an adapter that does nothing."""
    aggregator: AnyAggregator = FedBuff()
    """The rule that folds updates into one server step."""
    optimizer: AnyServerOptimizer = SGD()
    """The server's step on what the aggregator gives."""
    release: AnyCodec = Spectral(bits_per_value=0.37)
    """How the difference between two versions is packed; what it drops goes out with later ones."""
    closed_form: ClosedFormConfig | None = None
    """Begin with a head solved from sums over the vehicles' features (`vehicle.agent.sums_of_frames`); None
    takes no sums."""
    clip: ClipConfig | None = ClipConfig()
    """Bounds what one vehicle's update may change; null counts updates of any length that makes sense."""
    max_staleness: int = Field(default=50, ge=0)
    """Versions; an update based on an older one is refused."""
    max_in_flight: int = Field(default=128, ge=1)
    """Updates a gateway has under judgement at a time; more of them wait in the broker."""
    max_in_flight_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Of their frames; one is taken whatever it weighs, as far as the model's layout allows it at all."""
    limits: LimitsConfig = LimitsConfig()
    """How much a gateway reads of what vehicles send."""
    held_out: Path | None = None
    """Labelled frames (.npz: images uint8 [N, H, W, 3], labels [N], conditions str [N]) on which
    every release is evaluated; None evaluates none."""
    http: HttpConfig | None = HttpConfig()
    """null: no endpoint, only gateways and aggregator."""
    monitor: MonitorConfig = MonitorConfig()
    """Where the server says how it is: `/metrics` for Prometheus and `/fleet`."""
    events: EventsConfig = EventsConfig()
    """How much of events.jsonl stays."""
    ray: RayConfig = RayConfig()
    """The Ray cluster that the server's actors run in."""

    @property
    def monitor_port(self) -> int:
        if self.monitor.port is not None:
            return self.monitor.port
        port = HttpConfig().port if self.http is None else self.http.port
        return port and port + 1

    @property
    def monitor_url(self) -> str:
        """Where a server of these settings says how it is."""
        return url_of(self.monitor.host, self.monitor_port)

    @property
    def journal_path(self) -> Path:
        return path_in(self.state)

    @property
    def checkpoint_folder(self) -> Path:
        return self.state / "checkpoints"

    @property
    def told_path(self) -> Path:
        """Which row of the journal the events have told up to."""
        return self.state / "last_told_row"

    @property
    def generation_path(self) -> Path:
        """The highest number of a generation that was begun here."""
        return self.state / "generation"

    @property
    def restored_path(self) -> Path:
        """There after a restore from a backup, until a new generation has begun."""
        return self.state / "restored"

    @property
    def releases(self) -> Registry:
        return Registry.of_server(self.state)

    def recipe(self) -> dict[str, Any]:
        """What releases are made with, in plain values. No password is among them."""
        return self.model_dump(mode="json", exclude=AROUND)
