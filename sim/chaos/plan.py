"""Plan of a chaos run, drawn from its seed alone: the broker, and which faults begin and end when."""

import random
from dataclasses import dataclass

from sim.chaos.brokers import BrokerConfig
from sim.chaos.config import ChaosConfig
from sim.chaos.faults import FaultConfig

SETTLED_S = 1.0
"""Seconds of undisturbed work before the first fault may begin."""


@dataclass(frozen=True)
class PlannedFault:
    """One fault of a plan, with its times."""

    at_s: float
    """Beginning of the fault, in seconds since the fleet was at work."""
    until_s: float
    """Time of the repair, in seconds since the fleet was at work."""
    fault: FaultConfig
    """Kind and settings of the fault."""


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides about a run."""

    seed: int
    broker: BrokerConfig
    has_endpoint: bool
    """Whether the run has endpoint and evaluator, in its own Ray cluster."""
    faults: tuple[PlannedFault, ...]
    """Faults in order of their beginnings."""


def planned(config: ChaosConfig, seed: int) -> Plan:
    """Plan for this seed; it depends on settings and seed only, not on other runs."""
    rng = random.Random(seed)
    has_endpoint = bool(config.endpoint_every) and seed % config.endpoint_every == 0
    # Without the division, a broker would have the endpoint either always or never.
    dealt = seed // config.endpoint_every if has_endpoint else seed
    broker = config.brokers[dealt % len(config.brokers)]
    return Plan(seed, broker, has_endpoint, _faults(config, rng, has_endpoint))


def _faults(
    config: ChaosConfig, rng: random.Random, has_endpoint: bool
) -> tuple[PlannedFault, ...]:
    possible = [f for f in config.faults if has_endpoint or not f.needs_endpoint]
    certain = [f for f in possible if f.always]
    chosen: list[PlannedFault] = []
    for number in range(len(certain) + rng.randint(*config.num_faults)):
        if number < len(certain):
            fault = certain[number]
        else:
            fault = _drawn(possible, rng, is_first=number == len(certain))
        at = SETTLED_S + rng.uniform(0.0, config.faults_s)
        candidate = PlannedFault(at, at + rng.uniform(*fault.for_s), fault)
        if not any(_same_victim(candidate, other) for other in chosen):
            chosen.append(candidate)
    return tuple(sorted(chosen, key=lambda planned: planned.at_s))


def _drawn(possible: list[FaultConfig], rng: random.Random, *, is_first: bool) -> FaultConfig:
    """A fault drawn by weight; the first one affects the endpoint if the run has one."""
    special = [fault for fault in possible if fault.needs_endpoint]
    among = special if special and is_first else possible
    return rng.choices(among, [fault.weight for fault in among])[0]


def _same_victim(one: PlannedFault, other: PlannedFault) -> bool:
    """Whether two faults overlap on one victim, which would make their repairs indistinguishable."""
    apart = one.until_s < other.at_s or other.until_s < one.at_s
    return one.fault.victim == other.fault.victim and not apart
