"""What a vehicle of the quick fleet learns: a small adapter and a head on features of the frozen backbone.

    logits = W (f + B relu(A f)) + b

Local training is the agent's (AdamW anew each time, clipped gradients, calibrated logits), in plain numpy: a
millisecond an update, so that an algorithm can be judged by thousands of runs before it costs hours.
"""

from dataclasses import dataclass

import numpy as np

from fleetfl.vectors import Layout


@dataclass(frozen=True)
class Head:
    num_features: int
    num_classes: int
    rank: int
    local_steps: int
    batch_size: int
    learning_rate: float

    @property
    def layout(self) -> Layout:
        features, rank = self.num_features, self.rank
        return Layout(
            (
                ("a", (features, rank)),
                ("b", (rank, features)),
                ("w", (features, self.num_classes)),
                ("bias", (self.num_classes,)),
            )
        )

    def start(self, features: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
        """Adapter that does nothing, head fitted to the factory's features; float32 [P]."""
        rng = np.random.default_rng(seed)
        a = rng.normal(size=(self.num_features, self.rank)) / np.sqrt(self.num_features)
        weights = np.zeros((self.num_features + 1, self.num_classes))
        padded = np.concatenate([features, np.ones((len(features), 1))], 1)
        hot = np.eye(self.num_classes)[labels]
        for _ in range(300):
            slope = padded.T @ (_softmax(padded @ weights) - hot) / len(features) + 1e-3 * weights
            weights -= 0.5 * slope
        return self.layout.flatten(
            {
                "a": a.astype(np.float32),
                "b": np.zeros((self.rank, self.num_features), np.float32),
                "w": weights[:-1].astype(np.float32),
                "bias": weights[-1].astype(np.float32),
            }
        )

    def train(
        self, start: np.ndarray, features: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> np.ndarray:
        """What some steps on a vehicle's own frames change, float32 [P]."""
        rng = np.random.default_rng(seed)
        counts = np.bincount(labels, minlength=self.num_classes) + 1.0
        prior = np.log(counts / counts.sum()).astype(np.float32)
        params, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for step in range(1, self.local_steps + 1):
            rows = rng.integers(0, len(labels), self.batch_size)
            slope = self._slope(params, features[rows], labels[rows], prior)
            slope *= min(1.0, 1.0 / (float(np.linalg.norm(slope)) + 1e-6))
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope * slope
            scale = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            params -= np.float32(self.learning_rate / (1 - 0.9**step)) * mean / scale
        return params - start

    def predicted(self, params: np.ndarray, features: np.ndarray) -> np.ndarray:
        parts = self.layout.unflatten(params)
        hidden = features + np.maximum(features @ parts["a"], 0) @ parts["b"]
        return (hidden @ parts["w"] + parts["bias"]).argmax(1)

    def _slope(
        self, params: np.ndarray, f: np.ndarray, labels: np.ndarray, prior: np.ndarray
    ) -> np.ndarray:
        parts = self.layout.unflatten(params)
        inner = f @ parts["a"]
        active = np.maximum(inner, 0)
        hidden = f + active @ parts["b"]
        error = _softmax(hidden @ parts["w"] + parts["bias"] + prior)
        error[np.arange(len(f)), labels] -= 1
        error /= len(f)
        back = error @ parts["w"].T
        through = (back @ parts["b"].T) * (inner > 0)
        slopes = (f.T @ through, active.T @ back, hidden.T @ error, error.sum(0))
        return np.concatenate([slope.ravel() for slope in slopes]).astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)
