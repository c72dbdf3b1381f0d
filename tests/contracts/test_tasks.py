"""What every task promises. A new file in fleetfl/tasks needs an example in SETTINGS, or this fails."""

import importlib

import numpy as np
import pytest
import torch

from fleetfl.plugins import available

pytestmark = pytest.mark.contracts
SETTINGS = {
    "classification": ({}, ("cat", "dog", "fox")),
    "regression": (
        {
            "numbers": [
                {"name": "altitude", "unit": "m", "low": 0, "high": 80, "tolerance": 5},
                {
                    "name": "heading",
                    "unit": "deg",
                    "period": 360,
                    "tolerance": 30,
                    "mirror": "negate",
                },
            ]
        },
        (),
    ),
}
B = 12


@pytest.fixture(params=available("fleetfl.tasks"))
def task(request):
    settings, classes = SETTINGS[request.param]
    return (
        importlib.import_module(f"fleetfl.tasks.{request.param}").Config(**settings).build(classes)
    )


@pytest.fixture
def targets(task):
    rng = np.random.default_rng(0)
    if len(task.targets) == len(task.outputs):
        return task.checked(rng.integers(0, len(task.outputs), B))
    return task.checked(rng.uniform(0, 80, (B, len(task.targets))))


def outputs(task, *shape):
    made = torch.from_numpy(np.random.default_rng(1).normal(size=(*shape, len(task.outputs))))
    return made.float().requires_grad_()


def test_its_names_differ_and_its_route_is_a_word(task):
    assert len({*task.outputs}) == len(task.outputs) > 0
    assert len({*task.targets}) == len(task.targets) > 0
    assert task.route.isalpha()


def test_the_loss_is_one_number_and_has_a_gradient(task, targets):
    given = outputs(task, B)
    loss = task.loss(given, torch.from_numpy(targets))
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert given.grad is not None
    assert given.grad.abs().sum() > 0


def test_losses_of_a_stack_are_those_of_each_vehicle(task, targets):
    given, two = outputs(task, 2, B), torch.from_numpy(np.stack([targets, targets[::-1]]))
    found = task.losses(given, two)
    assert found.shape == (2, B)
    for one in range(2):
        assert found[one].mean().item() == pytest.approx(
            task.loss(given[one], two[one]).item(), rel=1e-5
        )


def test_following_the_gradient_makes_every_prediction_right(task, targets):
    values = torch.zeros(B, len(task.outputs), requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(values, torch.from_numpy(targets)).backward()
        optimizer.step()
    with torch.no_grad():
        predictions = task.predictions(values).numpy()
    assert task.scores(predictions, targets).tolist() == [1.0] * B


def test_scores_are_from_0_to_1_and_what_is_no_number_counts_nothing(task, targets):
    with torch.no_grad():
        predictions = task.predictions(outputs(task, B)).numpy()
    scores = task.scores(predictions, targets)
    assert scores.shape == (B,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert task.scores(np.full_like(predictions, np.nan), targets).tolist() == [0.0] * B


def test_an_answer_tells_the_prediction(task):
    with torch.no_grad():
        (prediction,) = task.predictions(outputs(task, 1)).numpy()
    answer = task.answer(prediction, model_version=7)
    assert isinstance(answer, task.answer_type)
    told = answer.model_dump()
    assert told["model_version"] == 7
    np.testing.assert_array_equal(task.prediction(told), prediction)


def test_mirroring_twice_changes_nothing_and_no_flip_neither(task, targets):
    given = torch.from_numpy(targets)
    flip = torch.arange(B) % 2 == 0
    torch.testing.assert_close(
        task.mirrored(task.mirrored(given, flip), flip), given, rtol=0, atol=0
    )
    torch.testing.assert_close(
        task.mirrored(given, torch.zeros(B, dtype=torch.bool)), given, rtol=0, atol=0
    )


def test_what_a_vehicle_met_makes_a_finite_prior(task, targets):
    counts = np.ones(task.num_counts) + task.counted(targets)
    prior = task.prior(counts)
    assert (prior.dtype, prior.shape) == (np.float32, (len(task.outputs),))
    assert np.isfinite(prior).all()
    assert task.groups(targets).shape == (B,)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((B, 7)),
        np.array(["a"] * B),
        np.full((B, 2), np.nan),
        np.zeros(()),
        np.full(B, -1),
        np.full(B, 99),
    ],
)
def test_targets_that_do_not_fit_are_named(task, bad):
    with pytest.raises(ValueError, match=r"labels|targets"):
        task.checked(bad)
