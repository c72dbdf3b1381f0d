"""Fault of a link to the broker: cut, refused, half-open, slow or late."""

import math
import random
from typing import Literal

from pydantic import Field

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.tcp_proxy import Proxy
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Make one vehicle's, all vehicles' or the server's link to the broker bad."""

    kind: Literal["link"] = "link"
    whose: Literal["vehicle", "fleet", "server"] = "vehicle"
    """Affected links: one vehicle's, all vehicles', or the server's."""
    cut: bool = False
    """Whether existing connections are reset when the fault begins."""
    refuses: bool = False
    """Whether new connections are reset at once."""
    half_open: bool = False
    """Whether connections stay open and carry nothing, as behind a router that forgot them."""
    bytes_per_s: float = Field(default=math.inf, ge=0, allow_inf_nan=True)
    """Rate of each direction in bytes per second; 0 holds all bytes back."""
    delay_s: float = Field(default=0.0, ge=0)
    """Latency added to each direction, in seconds."""

    @property
    def name(self) -> str:
        how = {
            "cut": self.cut,
            "refused": self.refuses,
            "half-open": self.half_open,
            f"{self.bytes_per_s:g} B/s": self.bytes_per_s < math.inf,
            f"{self.delay_s:g} s late": self.delay_s > 0,
        }
        return f"link of {self.whose} {', '.join(word for word, so in how.items() if so)}"

    @property
    def victim(self) -> str:
        return "link of server" if self.whose == "server" else "link of vehicles"

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        one = rng.choice(testbed.vehicles)
        links: list[Proxy] = {
            "vehicle": [one.link],
            "fleet": [vehicle.link for vehicle in testbed.vehicles],
            "server": [testbed.server_link],
        }[self.whose]
        for link in links:
            link.set(
                refuses=self.refuses,
                half_open=self.half_open,
                up_bytes_per_s=self.bytes_per_s,
                down_bytes_per_s=self.bytes_per_s,
                delay_s=self.delay_s,
            )
            if self.cut:
                link.cut()

        def heal() -> None:
            for link in links:
                link.heal()

        return ActiveFault(heal, one.name if self.whose == "vehicle" else "")
