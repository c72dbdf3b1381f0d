"""Settings of a connection to an MQTT broker. Knows no connection."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from fleetfl.config import Section
from fleetfl.protocol.addresses import Host, authority
from fleetfl.transport import TransportConfig

Protocol = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}\Z")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]


class WebsocketConfig(Section):
    """The HTTP request that a websocket begins with."""

    path: str = Field(default="/mqtt", pattern=r"^/[\x21-\x7e]{0,2047}\Z")
    """Path of the request, which follows host and port in the URL."""

    headers: dict[HeaderName, SecretStr] = Field(default={})
    """Further headers of the request, such as a token that the broker asks for."""

    @field_validator("headers")
    @classmethod
    def _one_line_each(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not re.match(r"^[\x20-\x7e]{0,8192}\Z", value.get_secret_value()):
                raise ValueError(f"{name}: expected one line of printable ASCII")
        return headers


class ConnectionSettings(TransportConfig):
    """Settings of a connection to a broker: address, login, encryption and limits."""

    host: Host = "127.0.0.1"
    """Name or address of the broker."""

    port: int = Field(default=1883, ge=1, le=65_535)
    """TCP port; by custom 1883 in the clear and 8883 with TLS."""

    username: str | None = None
    """Name to log in with; none for a broker that knows us by certificate, or lets everybody in."""

    password: SecretStr | None = None
    """Password that goes with `username`; sent in the clear unless `tls` is on."""

    tls: bool = False
    """Whether the connection is encrypted, and the broker's certificate and name are verified."""

    ca_file: Path | None = None
    """PEM file of the authorities to trust; none means those of the system."""

    cert_file: Path | None = None
    """PEM file of our own certificate, for brokers that ask for one."""

    key_file: Path | None = None
    """PEM file of the key to `cert_file`; none means it is in the same file."""

    alpn: tuple[Protocol, ...] = ()
    """Protocols to offer in the TLS handshake (ALPN), for brokers that share port 443 with others; AWS IoT
    Core wants `[x-amzn-mqtt-ca]` there."""

    websocket: WebsocketConfig | None = None
    """Websocket to speak MQTT in, as some networks and clouds let nothing else through; `{}` is enough.
    With `tls: true` it is a wss:// connection."""

    client_id_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")
    """Prefix of all client ids of the fleet, before a colon, where the broker's rules ask for one."""

    keepalive_s: int = Field(default=60, ge=2, le=65_535)
    """Seconds of silence after which the client pings. A longer time saves traffic and notices a dead link
    later; one packet has to upload in less than twice this time."""

    reconnect_min_s: float = Field(default=1.0, gt=0)
    """Shortest pause, seconds, before connecting again (decorrelated jitter)."""

    reconnect_max_s: float = Field(default=30.0, gt=0)
    """Longest pause, seconds, before connecting again; longer spares a broker that comes back to a large
    fleet."""

    max_in_flight: int = Field(default=16, ge=1, le=1_000)
    """Most publishes without a PUBACK at a time; further ones wait. 1 or 2 suit a slow uplink, more a fast
    one."""

    max_queued: int = Field(default=1_000, ge=1)
    """Most incoming packets that wait for their reader; more take more memory.

    The broker's own window (Mosquitto max_inflight_messages, NATS max_ack_pending) bounds the QoS 1
    packets that are here and not acknowledged; keep it below this number. If it is not, the packet
    too many breaks the connection and stays with the broker. QoS 0 packets too many are dropped.
    """

    max_payload_bytes: int = Field(default=61_440, ge=2_048, le=268_000_000)
    """Largest payload to publish, bytes; no larger than what the broker takes, or it hangs up or worse.

    Larger frames go in chunks. The default keeps a packet below 64 KiB, which every broker takes, and lets
    other packets through within a second on an uplink of 60 KB/s.
    """

    @model_validator(mode="after")
    def _consistent(self) -> "ConnectionSettings":
        if self.reconnect_max_s < self.reconnect_min_s:
            raise ValueError("reconnect_max_s is below reconnect_min_s")
        if not self.tls and (self.ca_file or self.cert_file or self.key_file or self.alpn):
            raise ValueError("ca_file, cert_file, key_file and alpn need tls: true")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self

    @property
    def address(self) -> str:
        """Host and port of the broker, without anything secret."""
        return authority(self.host, self.port)
