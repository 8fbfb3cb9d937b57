"""InfoNCE against torch, transformers, open_clip, info-nce-pytorch and pytorch-metric-learning."""

import importlib.util
import math

import pytest
import torch

from llmref.functional.info_nce import (
    clip_loss,
    clip_loss_from_scores,
    info_nce,
    info_nce_from_scores,
    uniformity,
)
from tests.tensors import random

TOPIC = "functional/info_nce"


def gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.cat([g.flatten() for g in torch.autograd.grad(function(*leaves), leaves)])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_of_scores_equals_cross_entropy_of_torch(agreement, reduction):
    scores, positive = 5 * random(4, 7), torch.tensor([6, 0, 3, 3])
    ours = info_nce_from_scores(scores, positive, reduction=reduction)
    theirs = torch.nn.functional.cross_entropy(scores, positive, reduction=reduction)
    convention = "scores over the temperature, positive as class"
    agreement("info_nce_from_scores", "torch", ours, theirs, atol=1e-12, convention=convention)


@pytest.fixture(scope="module")
def open_clip_loss():
    """The file alone: the package would import torchvision and timm."""
    package = importlib.util.find_spec("open_clip").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("open_clip_loss", f"{package}/loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clip_loss_equals_open_clip(agreement, open_clip_loss):
    image, text = (torch.nn.functional.normalize(random(5, 7, seed=s)) for s in (0, 1))
    theirs = open_clip_loss.ClipLoss()
    convention = "features normalised before, logit_scale = 1 / temperature"
    actual, expected = clip_loss(image, text, logit_scale=8.0), theirs(image, text, 8.0)
    agreement("clip_loss", "open_clip_torch", actual, expected, atol=1e-12, convention=convention)
    # The scale is learned as exp of a parameter.
    log_scale = torch.tensor(2.0, dtype=torch.float64)
    ours = gradients(
        lambda i, t, s: clip_loss_from_scores(s.exp() * i @ t.T), image, text, log_scale
    )
    other = gradients(lambda i, t, s: theirs(i, t, s.exp()), image, text, log_scale)
    agreement("clip_loss, gradient", "open_clip_torch", ours, other, atol=1e-12)


def test_clip_loss_equals_transformers(agreement):
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    scores = 5 * random(6, 6)
    ours, theirs = clip_loss_from_scores(scores), image_text_contrastive_loss(scores)
    convention = "scores already times the scale"
    agreement("clip_loss", "transformers", ours, theirs, atol=1e-12, convention=convention)


@pytest.mark.parametrize("mode", ["in-batch", "unpaired", "paired"])
def test_loss_equals_info_nce_pytorch(agreement, mode):
    from info_nce import info_nce as theirs

    query, key = random(3, 5), random(3, 5, seed=1)
    negatives = {"in-batch": None, "unpaired": random(4, 5), "paired": random(3, 4, 5)}[mode]
    keywords = {} if mode == "in-batch" else {"negative_mode": mode}

    def expected(q, k):
        return theirs(q, k, negatives, temperature=0.3, **keywords)

    def actual(q, k):
        return info_nce(q, k, temperature=0.3, negatives=negatives)

    formula = f"info_nce, {mode}"
    convention = "cosine over temperature"
    values = actual(query, key), expected(query, key)
    agreement(formula, "info-nce-pytorch", *values, atol=1e-12, convention=convention)
    slopes = gradients(actual, query, key), gradients(expected, query, key)
    agreement(formula, "info-nce-pytorch", *slopes, atol=1e-12, convention=convention)


def test_the_default_temperature_of_info_nce_pytorch_is_another():
    from info_nce import info_nce as theirs

    query, key = random(3, 5), random(3, 5, seed=1)
    difference = theirs(query, key) - info_nce(query, key, temperature=0.1)
    assert difference.abs() < 1e-12
    assert (theirs(query, key) - info_nce(query, key)).abs() > 1e-3


def test_nt_xent_equals_pytorch_metric_learning(agreement):
    """2 B anchors; the candidates are the other 2 B - 1 views, so N = 2 B - 1."""
    from pytorch_metric_learning.losses import NTXentLoss

    B = 4
    views = torch.nn.functional.normalize(random(2 * B, 5))
    scores = (views @ views.T / 0.07).fill_diagonal_(-math.inf)
    partner = torch.arange(2 * B).roll(B)
    ours = info_nce_from_scores(scores, partner)
    theirs = NTXentLoss(temperature=0.07)(views, torch.arange(B).repeat(2))
    convention = "2B anchors, own view excluded"
    agreement(
        "info_nce_from_scores, two views",
        "pytorch-metric-learning",
        ours,
        theirs,
        atol=1e-9,
        convention=convention,
    )


def test_one_direction_equals_pytorch_metric_learning(agreement):
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    query, key = random(4, 5), random(4, 5, seed=1)
    theirs = SelfSupervisedLoss(NTXentLoss(temperature=0.2), symmetric=False)(query, key)
    ours = info_nce(query, key, temperature=0.2)
    convention = "SelfSupervisedLoss(symmetric=False)"
    agreement(
        "info_nce, in-batch",
        "pytorch-metric-learning",
        ours,
        theirs,
        atol=1e-9,
        convention=convention,
    )


def test_uniformity_equals_pairwise_distances_of_torch(agreement):
    x = torch.nn.functional.normalize(random(6, 5))
    theirs = torch.pdist(x).square().mul(-2).exp().mean().log()
    agreement("uniformity", "torch", uniformity(x), theirs, atol=1e-12, convention="pdist")
