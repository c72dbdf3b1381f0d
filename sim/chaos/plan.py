"""What happens in a run, from its seed alone: the broker, and which fault strikes when and for how long."""

import random
from dataclasses import dataclass

from sim.chaos.brokers import BrokerConfig
from sim.chaos.config import ChaosConfig
from sim.chaos.faults import FaultConfig

SETTLED_S = 1.0
"""Before the first fault, for the fleet to be at work."""


@dataclass(frozen=True)
class Strike:
    at_s: float
    """Since the fleet was at work."""
    until_s: float
    fault: FaultConfig


@dataclass(frozen=True)
class Plan:
    seed: int
    broker: BrokerConfig
    has_endpoint: bool
    strikes: tuple[Strike, ...]
    """In the order of their beginnings."""


def planned(config: ChaosConfig, seed: int) -> Plan:
    """The same for the same settings and seed, whatever other runs there are."""
    rng = random.Random(seed)
    has_endpoint = bool(config.endpoint_every) and seed % config.endpoint_every == 0
    # After the division, or each broker would always or never have the endpoint.
    dealt = seed // config.endpoint_every if has_endpoint else seed
    broker = config.brokers[dealt % len(config.brokers)]
    return Plan(seed, broker, has_endpoint, _strikes(config, rng, has_endpoint))


def _strikes(config: ChaosConfig, rng: random.Random, has_endpoint: bool) -> tuple[Strike, ...]:
    possible = [f for f in config.faults if has_endpoint or not f.needs_endpoint]
    certain = [f for f in possible if f.always]
    special = [f for f in possible if f.needs_endpoint]
    chosen: list[Strike] = []
    for number in range(len(certain) + rng.randint(*config.num_faults)):
        fault = certain[number] if number < len(certain) else None
        if fault is None:
            among = special if special and number == len(certain) else possible
            fault = rng.choices(among, [f.weight for f in among])[0]
        at = SETTLED_S + rng.uniform(0.0, config.faults_s)
        inject = Strike(at, at + rng.uniform(*fault.for_s), fault)
        if not any(_same_victim(inject, other) for other in chosen):
            chosen.append(inject)
    return tuple(sorted(chosen, key=lambda inject: inject.at_s))


def _same_victim(one: Strike, other: Strike) -> bool:
    """The second would strike what is down already, or its cure would be taken for the other's."""
    apart = one.until_s < other.at_s or other.until_s < one.at_s
    return one.fault.victim == other.fault.victim and not apart
