"""The released code's regime, train.precision fp16-weights, against plain float16 tensors and operations."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irra.checkpoint import StateFolder, load_model
from irra.config import TrainConfig
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import encode_split
from irra.model.weights import read_tensors
from irra.trainer import Trainer
from irra.training import save_best
from irra.utils.device import half_weights
from irra.utils.errors import Interrupted, UserError
from tests.models import small_model
from tests.trainers import CPU, Meets, Quiet

STEPS = 3
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-3


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    """As published, but for the rates."""
    adam = {"optimizer": "Adam", "alpha": BETA1, "beta": BETA2, "eps": EPSILON}
    return train_config.model_copy(update={"precision": "fp16-weights", "lr": 1e-4, "warmup_epochs": 0, **adam})


def start(store: PreparedStore, tokens: TokenStore, config: TrainConfig, folder: Path) -> Trainer:
    """Return a trainer of a small model that predicts the tokens of the captions alone, resumed from `folder`."""
    model = small_model(config.seed, mlm_ids=tokens.vocabulary(store.caption_ids("train")))
    return Trainer(model, TrainingData(store, tokens, config), config, CPU, StateFolder(folder, {}))


class Released:
    """Weights by name, and a training step whose every operation is written out: float32 in `float()`, else float16."""

    def __init__(self, trainer: Trainer) -> None:
        start = trainer.model.state_dict()
        self.weights = {name: weight.clone().requires_grad_() for name, weight in start.items()}
        groups = trainer.optimizer.param_groups
        self.rules = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
        self.rules = {name: self.rules[id(p)] for name, p in trainer.model.named_parameters()}
        self.first = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.second = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.scale, self.class_of, self.steps = trainer.model.logit_scale, trainer.model.mlm_class_of, 0

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        losses = self.losses(batch)
        for weight in self.weights.values():
            weight.grad = None
        sum(losses.values(), torch.zeros(())).backward()
        self.steps += 1
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.adam(name, weight, weight.grad))
        return {name: loss.item() for name, loss in losses.items()}

    def adam(self, name: str, weight: Tensor, gradient: Tensor) -> Tensor:
        """The new weight; `rounded` ends every operation of the released code's optimizer."""

        def rounded(x: Tensor) -> Tensor:
            return x.to(weight.dtype).float()

        rate, decay = self.rules[name]
        p, g, m, v = (x.float() for x in (weight, gradient, self.first[name], self.second[name]))
        g = rounded(g + decay * p)
        m = rounded(m + (1 - BETA1) * (g - m))
        v = rounded(rounded(BETA2 * v) + (1 - BETA2) * g * g)
        d = rounded(rounded(rounded(v.sqrt()) / (1 - BETA2**self.steps) ** 0.5) + EPSILON)
        self.first[name], self.second[name] = m.to(weight.dtype), v.to(weight.dtype)
        return rounded(p - rate / (1 - BETA1**self.steps) * m / d)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        patches, words = self.images(batch["images"]), self.texts(batch["mlm_ids"])
        image = patches[:, 0].float()
        text = words[torch.arange(len(words)), batch["mlm_ids"].argmax(dim=1)].float()
        tokens, labels = self.masked(words, patches).flatten(0, 1), self.class_of[batch["mlm_labels"].flatten()]
        people = [F.cross_entropy(self.linear(x.half(), "classifier").float(), batch["pids"]) for x in (image, text)]
        return {
            "sdm": self.sdm(image, text, batch["pids"]),
            "mlm": F.cross_entropy(tokens.float(), labels, ignore_index=0),
            "id": (people[0] + people[1]) / 2,
        }

    def sdm(self, image: Tensor, text: Tensor, pids: Tensor) -> Tensor:
        logits = self.scale * F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
        labels = (pids[:, None] == pids).float()
        wanted = torch.log(labels / labels.sum(dim=1, keepdim=True) + 1e-8)
        both = [(x.softmax(dim=1) * (x.log_softmax(dim=1) - wanted)).sum(dim=1).mean() for x in (logits, logits.T)]
        return both[0] + both[1]

    def images(self, images: Tensor) -> Tensor:
        w, at = self.weights, "clip.visual"
        patches = F.conv2d(images.half(), w[f"{at}.conv1.weight"], stride=16).flatten(2).transpose(1, 2)
        start = w[f"{at}.class_embedding"].half().expand(len(images), 1, -1)
        x = torch.cat([start, patches], dim=1) + w[f"{at}.positional_embedding"].half()
        x = self.blocks(self.norm(x, f"{at}.ln_pre"), f"{at}.transformer", layers=2, heads=2)
        return self.norm(x, f"{at}.ln_post") @ w[f"{at}.proj"]

    def texts(self, ids: Tensor) -> Tensor:
        w = self.weights
        x = w["clip.token_embedding.weight"][ids].half() + w["clip.positional_embedding"].half()
        x = self.blocks(x, "clip.transformer", layers=2, heads=2, causal=True)
        return self.norm(x, "clip.ln_final") @ w["clip.text_projection"]

    def masked(self, words: Tensor, patches: Tensor) -> Tensor:
        at = "interaction"
        query, memory = self.norm(words, f"{at}.ln_pre_t"), self.norm(patches, f"{at}.ln_pre_i")
        x = self.attend(query, memory, f"{at}.cross_attn", heads=8)
        x = self.norm(self.blocks(x, f"{at}.cross_modal_transformer", layers=1, heads=8), f"{at}.ln_post")
        x = self.norm(self.gelu(self.linear(x, f"{at}.mlm_head.dense")), f"{at}.mlm_head.ln")
        return self.linear(x, f"{at}.mlm_head.fc")

    def blocks(self, x: Tensor, prefix: str, layers: int, heads: int, causal: bool = False) -> Tensor:
        for number in range(layers):
            at = f"{prefix}.resblocks.{number}"
            normed = self.norm(x, f"{at}.ln_1")
            x = x + self.attend(normed, normed, f"{at}.attn", heads, causal)
            x = x + self.linear(
                self.gelu(self.linear(self.norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")), f"{at}.mlp.c_proj"
            )
        return x

    def attend(self, query: Tensor, memory: Tensor, at: str, heads: int, causal: bool = False) -> Tensor:
        weights, biases = self.weights[f"{at}.in_proj_weight"].chunk(3), self.weights[f"{at}.in_proj_bias"].chunk(3)
        q, k, v = (F.linear(x, *part) for x, *part in zip((query, memory, memory), weights, biases, strict=True))
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2).float() for x in (q, k, v))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if causal:
            scores = scores + torch.full(scores.shape[2:], -torch.inf).triu(1)
        return self.linear((scores.softmax(dim=3) @ v).half().transpose(1, 2).flatten(2), f"{at}.out_proj")

    def norm(self, x: Tensor, at: str) -> Tensor:
        weight, bias = self.weights[f"{at}.weight"], self.weights[f"{at}.bias"]
        return F.layer_norm(x.float(), weight.shape, weight, bias).half()

    def linear(self, x: Tensor, at: str) -> Tensor:
        return F.linear(x, self.weights[f"{at}.weight"], self.weights[f"{at}.bias"])

    def gelu(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def is_wide(name: str) -> bool:
    """Whether the released code keeps the weight in float32: layer norms, and embeddings."""
    return "ln_" in name or ".ln." in name or "embedding" in name


def distance(found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor] | None = None) -> float:
    """Return the difference, as a share of what is expected, or of how far that is from the start."""
    names = list(found)
    one, other, before = (
        torch.cat([values[name].detach().float().flatten() for name in names])
        for values in (found, expected, start or {name: torch.zeros_like(expected[name]) for name in names})
    )
    return ((one - other).norm() / (other - before).norm()).item()


def test_steps_are_those_of_plain_float16_tensors(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = start(store, tokens, config, tmp_path)
    parameters = dict(trainer.model.named_parameters())
    before = {name: weight.detach().clone() for name, weight in parameters.items()}
    released = None
    for _, batch in zip(range(STEPS), trainer.rest_of_epoch(), strict=False):
        released = released or Released(trainer)
        expected = released.step(batch)
        trainer.averager.reset()
        trainer.step(batch)
        assert {name: trainer.averager.means()[f"loss/{name}"] for name in expected} == pytest.approx(
            expected, rel=2e-3
        )
    assert released is not None
    for wide in (True, False):
        names = [name for name in parameters if is_wide(name) == wide]
        states = {name: trainer.optimizer.state[parameters[name]] for name in names}
        weights = {name: parameters[name] for name in names}
        gradients = {name: parameters[name].grad for name in names}
        first, second = ({name: state[key] for name, state in states.items()} for key in ("exp_avg", "exp_avg_sq"))
        dtypes = {x.dtype for tensors in (weights, gradients, first, second) for x in tensors.values()}
        assert dtypes == {torch.float32 if wide else torch.float16}
        assert distance(weights, released.weights, before) < 0.15
        # by these, no loss was scaled
        assert distance(gradients, {name: released.weights[name].grad for name in names}) < 0.02
        assert distance(first, released.first) < 0.02
        assert distance(second, released.second) < 0.04


@pytest.mark.parametrize(("precision", "at_least", "at_most"), [("fp16-weights", 0.9, 1.0), ("fp32", 0.0, 0.1)])
def test_most_float16_weights_do_not_move_in_a_first_step_at_the_published_rates(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tmp_path: Path,
    precision: str,
    at_least: float,
    at_most: float,
) -> None:
    published = {"lr": 1e-5, "weight_decay": 4e-5, "warmup_epochs": 1, "precision": precision}
    trainer = start(store, tokens, config.model_copy(update=published), tmp_path)
    names = [name for name in trainer.model.state_dict() if not is_wide(name)]
    before = {name: trainer.model.state_dict()[name].clone() for name in names}
    trainer.step(next(trainer.rest_of_epoch()))
    after = trainer.model.state_dict()
    unmoved = torch.cat([(after[name] == before[name]).flatten() for name in names]).float().mean().item()
    assert at_least <= unmoved <= at_most


def test_resumed_training_equals_a_straight_one_and_its_best_weights_are_a_model(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"log_period": 1, "num_epoch": 2, "batch_size": 16})
    whole = start(store, tokens, config, tmp_path / "whole")
    expected = whole.fit(Quiet())
    with pytest.raises(Interrupted):
        start(store, tokens, config, tmp_path / "cut").fit(Meets(4))
    resumed = start(store, tokens, config, tmp_path / "cut")
    state = resumed.fit(Quiet())
    assert state == expected
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    save_best(whole, tmp_path / "model")
    kept = read_tensors(whole.folder.best_weights(state.best_epoch))
    for name, weight in load_model(tmp_path / "model").state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, kept[name].float()), name
    assert state.history[-1]["loss/total"] < state.history[0]["loss/total"]


def test_features_of_an_evaluation_are_float32(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    model = start(store, tokens, config, tmp_path).model.eval()
    features = encode_split(model, store, tokens, "test", 3, config.precision)
    assert {features.images.dtype, features.captions.dtype} == {torch.float32}


def test_other_devices_are_refused() -> None:
    with pytest.raises(UserError, match="fp16-weights is for the devices cuda and cpu, not for meta"):
        half_weights(nn.Linear(1, 1, device="meta"))
