"""The CLIP backbone, adapted to the size of person images, with features for every token."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irra.backbones import read_config
from irra.model.attention import last_attention, run_blocks, run_blocks_at, run_but_last, run_last, run_last_at
from irra.model.modules import CLIP, VisionTransformer
from irra.model.token_selection import select_patches, select_words
from irra.model.weights import load_strictly, read_foreign
from irra.utils.errors import UserError

KEPT_POSITIONS, STRETCH = 20, 4  # in LongCLIP's extension of the text encoder's positions


def create_clip(
    architecture: dict[str, Any],
    image_size: tuple[int, int],
    stride: int,
    text_length: int,
    weights: Path | None = None,
) -> CLIP:
    """A CLIP for images of `image_size` (height, width) and texts of up to `text_length` tokens.

    Args:
        architecture: An open_clip model configuration (embed_dim, vision_cfg, text_cfg, quick_gelu).
        image_size: Height and width in pixels.
        stride: Step between patches in pixels; below the patch size, patches overlap.
        text_length: Tokens of a text, including start and end.
        weights: A file with pretrained weights of this architecture; None for random weights.

    Raises:
        UserError: The weights do not fit the architecture, or its positions cannot be extended to `text_length`.
    """
    clip = CLIP(**architecture)
    if weights is not None:
        load_weights(clip, weights)
    del clip.logit_scale  # the temperature is a constant here, not a weight
    adapt_image_size(clip.visual, image_size, stride)
    clip.positional_embedding = nn.Parameter(extend_positions(clip.positional_embedding.detach(), text_length))
    return clip


def find_weights(backbone: str, pretrained: str | None) -> Path | None:
    """The file of pretrained weights, downloaded if need be.

    Args:
        backbone: Name of the backbone.
        pretrained: A path, a tag of weights that open_clip can download, or None for no pretrained weights.

    Raises:
        UserError: There is no such file or tag, the weights belong to another network, or the download failed.
    """
    if pretrained is None:
        return None
    file = Path(pretrained)
    if file.is_symlink() or (file.exists() and not file.is_dir()):
        return _check_file(backbone, file)
    import open_clip  # takes seconds

    tags = open_clip.list_pretrained_tags_by_model(backbone)
    if pretrained not in tags:
        known = ", ".join(tags) or "none"
        raise UserError(
            f"train.pretrained: {pretrained!r} is neither a file nor weights of {backbone} (known: {known})"
        )
    metadata = open_clip.get_pretrained_cfg(backbone, pretrained)
    _check_same_network(backbone, pretrained, metadata)
    try:
        return Path(open_clip.download_pretrained(metadata))
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"train.pretrained: {pretrained!r} of {backbone} could not be downloaded ({reason}); "
            "without internet, name a local file that holds these weights"
        ) from None


def _check_file(backbone: str, path: Path) -> Path:
    """Refuse a file without weights, or with OpenAI's for a backbone of another activation.

    Raises:
        UserError: It is one.
    """
    _, openai = _read_pretrained(path)
    if openai:
        _check_activation(backbone, str(path), quick=True)
    return path


def _check_activation(backbone: str, pretrained: str, quick: bool) -> None:
    if quick != bool(read_config(backbone).get("quick_gelu")):
        other = f"{backbone}-quickgelu" if quick else backbone.removesuffix("-quickgelu")
        raise UserError(
            f"train.pretrained: {pretrained!r} was trained with{'' if quick else 'out'} QuickGELU, unlike {backbone}; "
            f"set train.backbone: {other}"
        )


def _check_same_network(backbone: str, pretrained: str, metadata: dict[str, Any]) -> None:
    """Refuse weights that would load but were trained with another activation or another normalisation of colours.

    Raises:
        UserError: They were.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    quick = bool(metadata.get("quick_gelu"))
    _check_activation(backbone, pretrained, quick)
    mean, std = metadata.get("mean") or OPENAI_DATASET_MEAN, metadata.get("std") or OPENAI_DATASET_STD
    if (tuple(mean), tuple(std)) != (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD):
        raise UserError(
            f"train.pretrained: {pretrained!r} of {backbone} expects colours of mean {mean} and standard "
            f"deviation {std}, but images are normalised with CLIP's here; choose weights that use those"
        )


def load_weights(clip: CLIP, path: Path) -> None:
    """Load all weights of `clip`, strictly, from a file as `read_foreign` reads them.

    As in open_clip, position embeddings of other sizes are resized, and the shape of the temperature does not matter.

    Raises:
        UserError: The file cannot be read, or its weights do not fit.
    """
    weights, _ = _read_pretrained(path)
    if "logit_scale" in weights and weights["logit_scale"].numel() == 1:
        weights["logit_scale"] = weights["logit_scale"].reshape(clip.logit_scale.shape)
    if any(weights[name].shape[:1] != own.shape[:1] for name, own in _positions(clip).items() if name in weights):
        from open_clip.model import resize_pos_embed, resize_text_pos_embed  # takes seconds

        try:
            resize_pos_embed(weights, clip)
            resize_text_pos_embed(weights, clip)
        except (AssertionError, IndexError, RuntimeError):
            pass  # of shapes that no resizing makes fit, which are named below
    try:
        load_strictly(clip, weights, path)
    except UserError as error:
        raise UserError(f"train.pretrained: {path} holds no weights of this backbone: {error}") from None


def _positions(clip: CLIP) -> dict[str, Tensor]:
    return {
        "visual.positional_embedding": clip.visual.positional_embedding,
        "positional_embedding": clip.positional_embedding,
    }


def _read_pretrained(path: Path) -> tuple[dict[str, Tensor], bool]:
    try:
        return read_foreign(path)
    except UserError as error:
        raise UserError(f"train.pretrained: {error}") from None


def adapt_image_size(visual: VisionTransformer, image_size: tuple[int, int], stride: int) -> None:
    """Change the image encoder's input size and patch stride; position embeddings are resized, except the class one."""
    height, width = image_size
    patch_height, patch_width = visual.patch_size
    grid = ((height - patch_height) // stride + 1, (width - patch_width) // stride + 1)
    embedding = resize_positions(visual.positional_embedding.detach(), visual.grid_size, grid)
    visual.positional_embedding = nn.Parameter(embedding)
    visual.conv1.stride = (stride, stride)
    visual.image_size, visual.grid_size = image_size, grid


def resize_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize positions (1 + old grid, D) to (1 + new grid, D): bilinear, align_corners False, no antialiasing."""
    if old == new:
        return embedding.clone()
    grid = embedding[1:].T.reshape(1, -1, *old)
    grid = F.interpolate(grid, size=new, mode="bilinear", align_corners=False)
    return torch.cat([embedding[:1], grid.flatten(2)[0].T])


def extend_positions(embedding: Tensor, length: int) -> Tensor:
    """The first `length` of the text encoder's positions (L, D), or of more if `length` exceeds L.

    As in LongCLIP (Zhang et al., ECCV 2024), the first 20 stay, since most captions are short and these alone are well
    trained; each of the others becomes four on the straight line to the next one, and the last ones go on along the
    line before them. So CLIP's 77 positions become up to 248.

    Raises:
        UserError: `length` is more than that.
    """
    if length <= len(embedding):
        return embedding[:length].clone()
    longest = len(embedding) + (STRETCH - 1) * max(0, len(embedding) - KEPT_POSITIONS)
    if length > longest:
        raise UserError(
            f"tokenize.text_length: {length} tokens are more than the {longest} to which this backbone's "
            f"{len(embedding)} positions can be extended"
        )
    kept, stretched = embedding[:KEPT_POSITIONS], embedding[KEPT_POSITIONS:]
    steps = torch.cat([stretched[1:] - stretched[:-1], embedding[-1:] - embedding[-2:-1]])
    parts = torch.arange(STRETCH, dtype=embedding.dtype, device=embedding.device)[:, None] / STRETCH
    between = stretched[:, None] + parts * steps[:, None]
    return torch.cat([kept, between.flatten(0, 1)])[:length]


def image_tokens(visual: Any, images: Tensor, recompute: bool = False) -> Tensor:
    """(B, 3, H, W) to (B, 1 + patches, D), class token first; final layer norm and projection act on every token."""
    return _project_image(visual, run_blocks(visual.transformer, _embed_image(visual, images), recompute=recompute))


def image_feature(visual: Any, images: Tensor, recompute: bool = False) -> Tensor:
    """(B, 3, H, W) to the class token's (B, D), as in `image_tokens`."""
    x = _embed_image(visual, images)
    first = torch.zeros(x.shape[0], 1, dtype=torch.long, device=x.device)
    return _project_image(visual, run_blocks_at(visual.transformer, x, first, recompute=recompute))[:, 0]


def text_tokens(clip: Any, caption_ids: Tensor, recompute: bool = False) -> Tensor:
    """(B, L) token ids to (B, L, D); final layer norm and projection act on every token.

    The encoder is causal, so trimming `caption_ids` to the longest caption does not change the remaining features.
    """
    x = run_blocks(clip.transformer, _embed_text(clip, caption_ids), causal=True, recompute=recompute)
    return _project_text(clip, x)


def text_feature(clip: Any, caption_ids: Tensor, recompute: bool = False) -> Tensor:
    """(B, L) token ids to the end token's (B, D), as in `text_tokens`."""
    x = _embed_text(clip, caption_ids)
    ends = end_positions(caption_ids)[:, None]
    return _project_text(clip, run_blocks_at(clip.transformer, x, ends, causal=True, recompute=recompute))[:, 0]


class Encoded(NamedTuple):
    """What an encoder gives.

    Attributes:
        feature: (B, D) of the class token or the end token.
        tokens: (B, N, D) of all tokens, where they are asked for.
        selected: (B, k, D) of selected tokens, where they are asked for.
        kept: (B, k) bool, false where a caption has fewer words than are selected.
    """

    feature: Tensor
    tokens: Tensor | None = None
    selected: Tensor | None = None
    kept: Tensor | None = None


def encode_image(
    visual: Any, images: Tensor, all_tokens: bool = False, ratio: float | None = None, recompute: bool = False
) -> Encoded:
    """Encode images (B, 3, H, W).

    With `ratio`, that share of the patches is selected, those to which the class token attends most in the last block.
    """
    if ratio is None:
        if not all_tokens:
            return Encoded(image_feature(visual, images, recompute))
        tokens = image_tokens(visual, images, recompute)
        return Encoded(tokens[:, 0], tokens)
    x = run_but_last(visual.transformer, _embed_image(visual, images), recompute=recompute)
    first = torch.zeros(x.shape[0], 1, dtype=torch.long, device=x.device)
    chosen = select_patches(last_attention(visual.transformer, x, first), ratio)
    kept = torch.ones_like(chosen, dtype=torch.bool)
    if all_tokens:
        tokens = _project_image(visual, run_last(visual.transformer, x, recompute=recompute))
        return Encoded(tokens[:, 0], tokens, _take(tokens, chosen), kept)
    few = _project_image(visual, run_last_at(visual.transformer, x, torch.cat([first, chosen], dim=1)))
    return Encoded(few[:, 0], None, few[:, 1:], kept)


def encode_text(
    clip: Any, caption_ids: Tensor, all_tokens: bool = False, ratio: float | None = None, recompute: bool = False
) -> Encoded:
    """Encode captions (B, L).

    With `ratio`, the words are selected to which the end token attends most in the last block. Their number is that
    share of the longest possible caption, whatever the captions.
    """
    ends = end_positions(caption_ids)[:, None]
    if ratio is None:
        if not all_tokens:
            return Encoded(text_feature(clip, caption_ids, recompute))
        tokens = text_tokens(clip, caption_ids, recompute)
        return Encoded(_take(tokens, ends)[:, 0], tokens)
    x = run_but_last(clip.transformer, _embed_text(clip, caption_ids), causal=True, recompute=recompute)
    count = int((clip.positional_embedding.shape[0] - 2) * ratio)
    chosen, kept = select_words(last_attention(clip.transformer, x, ends, causal=True), ends, count)
    if all_tokens:
        tokens = _project_text(clip, run_last(clip.transformer, x, causal=True, recompute=recompute))
        return Encoded(_take(tokens, ends)[:, 0], tokens, _take(tokens, chosen), kept)
    few = _project_text(clip, run_last_at(clip.transformer, x, torch.cat([ends, chosen], dim=1), causal=True))
    return Encoded(few[:, 0], None, few[:, 1:], kept)


def _take(tokens: Tensor, positions: Tensor) -> Tensor:
    """(B, M, D) of `tokens` (B, N, D) at `positions` (B, M)."""
    return tokens.gather(1, positions[:, :, None].expand(-1, -1, tokens.shape[2]))


def end_positions(caption_ids: Tensor) -> Tensor:
    """(B,) position of each row's end token, which has the highest id in the row."""
    return caption_ids.argmax(dim=1)


def _embed_image(visual: Any, images: Tensor) -> Tensor:
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    # not len(), which an export would record as a constant: https://github.com/pytorch/pytorch/pull/55151
    start = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
    x = torch.cat([start, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    embedded: Tensor = visual.ln_pre(x)
    return embedded


def _project_image(visual: Any, x: Tensor) -> Tensor:
    projected: Tensor = visual.ln_post(x) @ visual.proj
    return projected


def _embed_text(clip: Any, caption_ids: Tensor) -> Tensor:
    words, positions = clip.token_embedding(caption_ids), clip.positional_embedding[: caption_ids.shape[1]]
    half = clip.text_projection.dtype
    if half == torch.float16:  # as released
        summed: Tensor = words.to(half) + positions.to(half)
        return summed
    x: Tensor = words + positions
    kind = x.device.type
    # like the image encoder's, whose first operation is a convolution; sums over a batch and weights stay float32
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _project_text(clip: Any, x: Tensor) -> Tensor:
    projected: Tensor = clip.ln_final(x) @ clip.text_projection
    return projected
