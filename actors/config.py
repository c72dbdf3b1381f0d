"""Settings of the server: what the fleet shares, and the part `server`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from fleetfl.config import Section
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.defences.rate_limits import Config as LimitsConfig
from fleetfl.events.event_log import Config as EventsConfig
from fleetfl.fleet_config import FleetConfig
from fleetfl.protocol.addresses import Host, is_ipv6, url_of
from fleetfl.protocol.signing import KeysConfig
from fleetfl.registry.registry import Registry
from fleetfl.registry.retention import Config as RetentionConfig
from fleetfl.storage.journal import Config as JournalConfig
from fleetfl.storage.journal import path_in


class HttpConfig(Section):
    """Settings of the HTTP endpoint that classifies pictures."""

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
    """Settings of the monitor, which serves `/metrics` and `/fleet` to operators; not for the public."""

    host: Host = "127.0.0.1"
    """Address that the monitor listens on; it has no login, so keep it off public networks."""
    port: int | None = Field(default=None, ge=0, le=65_535)
    """TCP port, 0 for a free one; None is the one after the endpoint's."""


class RayConfig(Section):
    """Settings of the Ray cluster in which the server's actors run."""

    address: str | None = None
    """A Ray cluster, made with `ray start`, of which this machine is a node: gateways, aggregator and
    evaluator run here, replicas of the endpoint on any node. None starts one for this server alone."""
    object_store_bytes: int = Field(default=256 * 2**20, ge=80 * 2**20)
    """Bytes of shared memory for a cluster that the server starts itself."""

    @property
    def idle(self) -> Mapping[str, str]:
        """A cluster that is joined has its memory already."""
        return (
            {"object_store_bytes": "the cluster at `ray.address` has its own"}
            if self.address
            else {}
        )


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
"""Settings that do not influence any bit of a release."""


class ServerConfig(CoordinatorSettings, FleetConfig):
    """Settings of the server: how it aggregates updates, and where it listens and keeps its state."""

    state: Path
    """Folder for events.jsonl and what the server keeps: updates (`journal`), the model (`checkpoints`), its
    releases (`registry`), the keys of its vehicles (`keys`), its own (`key.pem`), and that one's public half
    for the vehicles (`server.pub`). Gateways and aggregator need it on one machine."""
    resume: bool = True
    """Go on from what `state` holds; false sets that aside and begins with release 0."""
    journal: JournalConfig = JournalConfig()
    """Retention of counted updates in the journal."""
    checkpoint_s: float = Field(default=2.0, ge=0)
    """Seconds between checkpoints while updates come; what came since is counted again after a crash."""
    registry: RetentionConfig = RetentionConfig()
    """Retention of releases in the registry on disk."""
    keys: KeysConfig = KeysConfig()
    """Public keys of the vehicles whose updates are accepted."""
    initial: Path | None = None
    """Adapter and head of release 0 (safetensors, as `adapter.safetensors` of a run); None starts
    from the backbone with an adapter that does nothing."""
    max_in_flight: int = Field(default=128, ge=1)
    """Updates a gateway has under judgement at a time; more of them wait in the broker."""
    max_in_flight_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Bytes of frames that a gateway has under judgement at a time; one frame alone always fits."""
    limits: LimitsConfig = LimitsConfig()
    """Rate limits on the packets that a gateway reads from vehicles."""
    held_out: Path | None = None
    """Labelled frames (.npz: images uint8 [N, H, W, 3], labels [N], conditions str [N]) on which
    every release is evaluated; None evaluates none."""
    http: HttpConfig | None = HttpConfig()
    """The HTTP endpoint that classifies pictures; null runs gateways and aggregator alone."""
    monitor: MonitorConfig = MonitorConfig()
    """The HTTP monitor of the server: `/metrics` for Prometheus and `/fleet`."""
    events: EventsConfig = EventsConfig()
    """Retention of events.jsonl."""
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
        """URL of the monitor of a server with these settings."""
        return url_of(self.monitor.host, self.monitor_port)

    @model_validator(mode="after")
    def _closed_form_fits(self) -> "ServerConfig":
        kind = self.model.task.kind_name
        if self.closed_form is not None and kind != "classification":
            raise ValueError(f"closed_form solves heads of classification, model.task is {kind!r}")
        return self

    @property
    def journal_path(self) -> Path:
        return path_in(self.state)

    @property
    def checkpoint_folder(self) -> Path:
        return self.state / "checkpoints"

    @property
    def told_path(self) -> Path:
        """File with the number of the last journal row whose events were written."""
        return self.state / "last_told_row"

    @property
    def generation_path(self) -> Path:
        """File with the highest number of a generation that was begun here."""
        return self.state / "generation"

    @property
    def restored_path(self) -> Path:
        """Marker file that exists after a restore from a backup, until a new generation has begun."""
        return self.state / "restored"

    @property
    def releases(self) -> Registry:
        return Registry.of_server(self.state)

    def recipe(self) -> dict[str, Any]:
        """The settings that releases follow from, as plain values without any password."""
        return self.model_dump(mode="json", exclude=AROUND)
