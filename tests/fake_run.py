"""A run that never was, as the report and the table take it. Same seed, same run."""

import io
from typing import Any

import numpy as np
from PIL import Image

from sim.report.measurement import Measurement
from sim.report.summary import summarize

WEATHERS = ("clear", "fog", "rain", "night", "snow", "dust", "motion_blur")
NUM_VALUES, NUM_PARAMETERS = 26_122, 5_700_000
WHOLE, STEP = 97_200, 26_300
"""Bytes of a snapshot and of a release."""


def fake_run(
    *, num_vehicles: int = 12, seconds: int = 200, goal: int = 10, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and events: slow vehicles are stale, v05 is killed, v07 sends what is refused."""
    dice = np.random.default_rng(seed)
    zero = 1_700_000_000.0
    names = [f"v{n:02d}" for n in range(num_vehicles)]
    events = [_at(zero, "released", version=0, sha256="0" * 64)]
    events.append(_at(zero + 1, "announced", version=0, bytes=130, snapshot_bytes=WHOLE))
    events += [_at(zero + 1, "replica_started", pid=40 + n, replicas=2) for n in range(2)]
    for n, name in enumerate(names):
        weather = {"condition": WEATHERS[n % len(WEATHERS)], "severity": 0.6}
        events += [
            _at(zero + 6, "vehicle_started", vehicle=name, pid=100 + n, **weather),
            _status(zero + 8 + 0.1 * n, "online", name, bytes_up=0, bytes_down=WHOLE),
        ]
    pause = dict(zip(names, dice.uniform(2.0, 14.0, num_vehicles), strict=True))
    ready = {name: zero + 10 + pause[name] * dice.random() for name in names}
    base, sequence = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    version = folded = 0
    killed = False
    while min(ready.values()) < zero + seconds:
        name = min(ready, key=ready.__getitem__)
        now = ready[name]
        if name == "v05" and now > zero + 70 and not killed:
            killed = True
            events += [
                _at(now, "vehicle_died", vehicle=name, code=-9, cause="signal 9"),
                _status(now + 0.5, "offline", name, bytes_up=0, bytes_down=0),
                _at(now + 24, "vehicle_started", vehicle=name, pid=300, condition="dust")
                | {"severity": 0.6},
                _status(now + 26, "online", name, bytes_up=0, bytes_down=WHOLE),
            ]
            ready[name] = now + 30
            continue
        sent = {
            "vehicle": name,
            "boot": "b0",
            "sequence": sequence[name],
            "base": base[name],
            "staleness": version - base[name],
            "bytes": int(dice.normal(7600, 60)),
        }
        sequence[name] += 1
        if name == "v07" and dice.random() < 0.3:
            detail = "body of 12 bytes, expected 3,300"
            events.append(_at(now, "refused", **sent, reason="body", detail=detail))
        else:
            loss = 0.4 + 1.2 * np.exp(-(now - zero) / 60) + dice.normal(0, 0.05)
            events.append(_at(now, "accepted", **sent, loss=float(loss), num_examples=256))
            folded += 1
        if dice.random() < 0.01:
            events.append(_at(now + 0.1, "duplicate", **sent))
        if folded == goal:
            folded, version = 0, version + 1
            accuracy = _accuracy(now - zero)
            scores = {w: _under(w, accuracy) for w in WEATHERS}
            events += [
                _at(now, "released", version=version, sha256=f"{version:064x}"),
                _at(now + 0.02, "announced", version=version, bytes=STEP)
                | {"snapshot_bytes": WHOLE},
                _at(now + 0.1, "serving", version=version),
                _at(now + 0.8, "evaluated", version=version, accuracy=accuracy)
                | {"by_condition": scores},
            ]
        base[name] = version
        ready[name] = now + pause[name] * dice.uniform(0.8, 1.3)
    for second in range(9, seconds):
        right = int(dice.binomial(20, _accuracy(second)))
        served = sum(e["event"] == "released" and e["time"] < zero + second for e in events) - 1
        counts = {"version": served, "requests": 20, "failures": 0, "right": right}
        events.append(_at(zero + second, "probe", **counts))
    events += [
        _at(zero + 121, "replica_started", pid=52, replicas=2),
        _at(
            zero + 95,
            "malformed",
            vehicle="v07",
            leaf="update",
            detail="starts with b'GET ', not FL",
        ),
    ]
    events += [
        _status(zero + seconds, "offline", n, bytes_up=0, bytes_down=WHOLE + STEP * version)
        | {"version": version}
        for n in names
    ]
    summary = summarize(
        events,
        start=Measurement(0, 0.612, {w: _under(w, 0.612) for w in WEATHERS}),
        end=Measurement(version, 0.834, {w: _under(w, 0.834) for w in WEATHERS}),
        centralized_baseline=0.867,
        num_values=NUM_VALUES,
        num_parameters=NUM_PARAMETERS,
        latencies_s=list(dice.gamma(4, 0.004, 500)),
        http_requests=20 * (seconds - 9),
        http_failures=0,
        name="quickstart",
        config="configs/quickstart.yaml",
        commit="4f1c2ab",
        seed=seed,
        started_at="2023-11-14T22:13:20+00:00",
        duration_s=float(seconds),
        num_vehicles=num_vehicles,
        precision="float32",
    )
    return summary, events


def fake_pictures(each: int = 4, seed: int = 0) -> list[tuple[str, bytes]]:
    """Blobs under noise, 32 x 32."""
    dice = np.random.default_rng(seed)
    down, across = np.mgrid[0:32, 0:32]
    pictures = []
    for weather in WEATHERS:
        for _ in range(each):
            row, column = dice.integers(8, 24, 2)
            blob = (abs(down - row) < 6) & (abs(across - column) < 4)
            image = np.where(blob[..., None], dice.integers(0, 255, 3), dice.integers(60, 160, 3))
            noisy = np.clip(image + dice.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            pictures.append((weather, _png(noisy)))
    return pictures


def _png(image: np.ndarray) -> bytes:
    body = io.BytesIO()
    Image.fromarray(image).save(body, "PNG")
    return body.getvalue()


def _at(time: float, event: str, **fields: Any) -> dict[str, Any]:
    return {"time": round(time, 3), "event": event, **fields}


def _status(time: float, state: str, vehicle: str, **counts: int) -> dict[str, Any]:
    return _at(time, state, vehicle=vehicle, boot="b0", version=0, waiting=0, note="", **counts)


def _accuracy(seconds: float) -> float:
    return 0.612 + 0.225 * (1 - float(np.exp(-max(0.0, seconds - 10) / 55)))


def _under(weather: str, accuracy: float) -> float:
    """Clear weather starts high and gains little; night starts low and gains most."""
    start = (0.91, 0.55, 0.63, 0.42, 0.58, 0.66, 0.53)[WEATHERS.index(weather)]
    end = (0.92, 0.81, 0.84, 0.76, 0.85, 0.86, 0.80)[WEATHERS.index(weather)]
    return start + (end - start) * (accuracy - 0.612) / 0.222
