"""A training step as IRRA's released code takes it, over this project's weights: the side that the product is held to.

It is plain on purpose. Everything is float32, captions keep all positions, the caption goes through the text encoder
twice (once for the global losses, once for MLM, even where both see the same masked ids), causal attention gets a mask
of floats, every position of the cross-modal branch gets logits over the vocabulary, Adam has a group per tensor, and
the loss is read back at every step. Losses are sdm + mlm + id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irra.config import TrainConfig
from irra.data.loader import TrainingData
from irra.model import IRRA
from irra.optim import parameter_groups


@dataclass(frozen=True)
class ReferenceBatch:
    """What the released loader yields: images (B, 3, H, W), rows of token ids (B, L) of full length, labels (B,)."""

    images: Tensor
    caption_ids: Tensor
    mlm_ids: Tensor
    mlm_labels: Tensor
    pids: Tensor


def reference_batches(data: TrainingData, epoch: int, device: torch.device) -> Iterator[ReferenceBatch]:
    """The batches of an epoch, with the images that the product's loader has augmented."""
    for chosen, batch in zip(data.epoch(epoch), data.batches(epoch, 0, device), strict=True):
        masked = data.tokens.masked(chosen, epoch)
        rows = [data.tokens.caption_ids[chosen], masked.mlm_ids, masked.mlm_labels]
        caption_ids, mlm_ids, mlm_labels = (torch.from_numpy(ids.astype("int64")).to(device) for ids in rows)
        seen = mlm_ids if data.config.mask_global_text else caption_ids
        yield ReferenceBatch(batch["images"], seen, mlm_ids, mlm_labels, batch["pids"])


class ReferenceStep:
    """Trains the weights of `model` in place."""

    def __init__(self, model: IRRA, config: TrainConfig) -> None:
        self.model, self.config = model, config
        groups = [
            {**group, "params": [parameter]}
            for group in parameter_groups(model, config)
            for parameter in group["params"]
        ]
        kind = torch.optim.AdamW if config.optimizer == "AdamW" else torch.optim.Adam
        self.optimizer = kind(groups, lr=config.lr, betas=(config.alpha, config.beta), eps=config.eps)

    def __call__(self, batch: ReferenceBatch) -> dict[str, float]:
        """Run forward, backward and the optimizer; returns the losses."""
        losses = reference_losses(self.model, batch, self.config)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()} | {"total": total.item()}


def reference_losses(model: IRRA, batch: ReferenceBatch, config: TrainConfig) -> dict[str, Tensor]:
    """The weighted losses sdm, mlm and id."""
    image_tokens = encode_images(model, batch.images)
    text_tokens = encode_texts(model, batch.caption_ids)
    ends = batch.caption_ids.argmax(dim=1)
    image_features, text_features = image_tokens[:, 0], text_tokens[torch.arange(len(ends)), ends]
    logits = fuse(model, encode_texts(model, batch.mlm_ids), image_tokens)
    labels = batch.mlm_labels if model.mlm_class_of is None else model.mlm_class_of[batch.mlm_labels]
    assert model.classifier is not None
    of_people = [F.cross_entropy(model.classifier(rows), batch.pids) for rows in (image_features, text_features)]
    return {
        "sdm": sdm(image_features, text_features, batch.pids, model.logit_scale),
        "mlm": config.mlm_loss_weight * F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=0),
        "id": config.id_loss_weight * (of_people[0] + of_people[1]) / 2,
    }


def sdm(image_features: Tensor, text_features: Tensor, pids: Tensor, logit_scale: float) -> Tensor:
    """Similarity distribution matching with hard labels."""
    images = image_features / image_features.norm(dim=1, keepdim=True)
    texts = text_features / text_features.norm(dim=1, keepdim=True)
    labels = (pids[:, None] == pids).float()
    target = torch.log(labels / labels.sum(dim=1, keepdim=True) + 1e-8)
    loss = torch.zeros((), device=pids.device)
    for logits in (logit_scale * texts @ images.T, logit_scale * images @ texts.T):
        divergence = F.softmax(logits, dim=1) * (F.log_softmax(logits, dim=1) - target)
        loss = loss + divergence.sum(dim=1).mean()
    return loss


def encode_images(model: IRRA, images: Tensor) -> Tensor:
    """Image tokens (B, 1 + patches, D)."""
    visual = model.clip.visual
    patches = F.conv2d(images, visual.conv1.weight, stride=visual.conv1.stride).flatten(2).transpose(1, 2)
    start = visual.class_embedding + torch.zeros(len(images), 1, patches.shape[2], device=images.device)
    x = _norm(visual.ln_pre, torch.cat([start, patches], dim=1) + visual.positional_embedding)
    x = _run(visual.transformer, x, None, model.spec.architecture.get("quick_gelu", False))
    return _norm(visual.ln_post, x) @ visual.proj


def encode_texts(model: IRRA, caption_ids: Tensor) -> Tensor:
    """Text tokens (B, L, D)."""
    clip, length = model.clip, caption_ids.shape[1]
    mask = torch.full((length, length), float("-inf"), device=caption_ids.device).triu(1)
    x = F.embedding(caption_ids, clip.token_embedding.weight) + clip.positional_embedding
    x = _run(clip.transformer, x, mask, model.spec.architecture.get("quick_gelu", False))
    return _norm(clip.ln_final, x) @ clip.text_projection


def fuse(model: IRRA, text_tokens: Tensor, image_tokens: Tensor) -> Tensor:
    """Logits (B, L, V) of the cross-modal branch at every position."""
    cross = model.interaction
    assert cross is not None
    query, memory = _norm(cross.ln_pre_t, text_tokens), _norm(cross.ln_pre_i, image_tokens)
    x = _attend(cross.cross_attn, query.transpose(0, 1), memory.transpose(0, 1), None).transpose(0, 1)
    x = _norm(cross.ln_post, _run(cross.cross_modal_transformer, x, None, quick=True))
    head: Any = cross.mlm_head
    return _linear(head.fc, _norm(head.ln, quick_gelu(_linear(head.dense, x))))


def _run(transformer: nn.Module, x: Tensor, mask: Tensor | None, quick: bool) -> Tensor:
    """Run all blocks on (B, N, D), with the batch in the second dimension inside, as CLIP's code does."""
    activation = quick_gelu if quick else F.gelu
    blocks: Any = transformer.resblocks
    x = x.transpose(0, 1)
    for block in blocks:
        normed = _norm(block.ln_1, x)
        x = x + _attend(block.attn, normed, normed, mask)
        x = x + _linear(block.mlp.c_proj, activation(_linear(block.mlp.c_fc, _norm(block.ln_2, x))))
    return x.transpose(0, 1)


def _attend(attention: Any, query: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """What nn.MultiheadAttention computes, of (N, B, D) and (M, B, D)."""
    attended, _ = F.multi_head_attention_forward(
        query,
        memory,
        memory,
        attention.embed_dim,
        attention.num_heads,
        attention.in_proj_weight,
        attention.in_proj_bias,
        None,
        None,
        False,
        0.0,
        attention.out_proj.weight,
        attention.out_proj.bias,
        need_weights=False,
        attn_mask=mask,
    )
    return attended


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def _norm(layer: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)
