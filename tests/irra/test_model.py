"""The model against open_clip's own forward pass, torch's attention, and the full computation behind each shortcut."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from irra.backbones import read_config
from irra.model.attention import attend, run_blocks, run_blocks_at
from irra.model.clip import (
    adapt_image_size,
    create_clip,
    extend_positions,
    find_weights,
    image_tokens,
    resize_positions,
    text_tokens,
)
from irra.utils.errors import UserError
from tests.models import architecture, small_model


def token_rows(batch: int, length: int, longest: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(batch, length, dtype=torch.long)
    rows[:, 0] = 49406
    for i, row in enumerate(rows):
        end = longest - 1 if i == 0 else int(torch.randint(3, longest, (), generator=generator))
        row[1:end] = torch.randint(1, 49405, (end - 1,), generator=generator)
        row[end] = 49407
    return rows


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torch_s_module(causal: bool) -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(32, 4, batch_first=True), torch.randn(3, 7, 32)
    mask = torch.full((7, 7), -torch.inf).triu(1) if causal else None
    expected, _ = attention(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(attend(attention, x, x, causal), expected)


def test_cross_attention_equals_torch_s_module() -> None:
    torch.manual_seed(0)
    attention, query, memory = (
        nn.MultiheadAttention(32, 4, batch_first=True),
        torch.randn(3, 5, 32),
        torch.randn(3, 9, 32),
    )
    expected, _ = attention(query, memory, memory, need_weights=False)
    torch.testing.assert_close(attend(attention, query, memory), expected)


def test_dropout_is_that_of_attention_weights() -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(32, 4, dropout=0.5, batch_first=True), torch.randn(3, 7, 32)
    torch.manual_seed(1)
    dropped = attend(attention, x, x, causal=True)
    q, k, v = (part.view(3, 7, 4, 8).transpose(1, 2) for part in F.linear(x, attention.in_proj_weight).chunk(3, dim=-1))
    scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    torch.manual_seed(1)
    weights = F.dropout(scores.softmax(dim=-1), 0.5)
    torch.testing.assert_close(dropped, attention.out_proj((weights @ v).transpose(1, 2).flatten(2)))


def test_features_equal_open_clip_s_where_nothing_is_adapted() -> None:
    torch.manual_seed(0)
    theirs = open_clip.CLIP(**architecture()).eval()
    ours = create_clip(architecture(), (64, 32), 16, 77)
    weights = theirs.state_dict()
    weights.pop("logit_scale")
    ours.load_state_dict(weights)
    images, ids = torch.randn(2, 3, 64, 32), token_rows(4, 77, 30)
    torch.testing.assert_close(image_tokens(ours.visual, images)[:, 0], theirs.encode_image(images))
    ends = text_tokens(ours, ids)[torch.arange(4), ids.argmax(1)]
    torch.testing.assert_close(ends, theirs.encode_text(ids))


def test_published_geometry_has_193_tokens_and_149_6_million_parameters() -> None:
    with torch.device("meta"):
        clip = open_clip.CLIP(**read_config("ViT-B-16-quickgelu"))
        del clip.logit_scale
        adapt_image_size(clip.visual, (384, 128), 16)
    assert clip.visual.positional_embedding.shape == (193, 768)
    assert sum(p.numel() for p in clip.parameters()) == pytest.approx(149.6e6, rel=1e-3)


def test_whole_published_model_has_194_5_million_parameters() -> None:
    from irra.model import ModelSpec, build_model

    spec = ModelSpec(read_config("ViT-B-16-quickgelu"), (384, 128), 16, 77, 0.02, 11003, 4)
    with torch.device("meta"):
        model = build_model(spec)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(194.5e6, rel=1e-3)


@pytest.mark.parametrize(("stride", "patches"), [(16, 4 * 2), (8, 7 * 3), (12, 5 * 2)])
def test_any_stride_gives_its_grid_of_patches(stride: int, patches: int) -> None:
    model = small_model(stride_size=stride)
    assert model.image_tokens(torch.randn(2, 3, 64, 32)).shape == (2, 1 + patches, 16)


def test_positions_are_resized_bilinearly_and_the_class_position_is_kept() -> None:
    embedding = torch.randn(1 + 14 * 14, 6, generator=torch.Generator().manual_seed(0))
    resized = resize_positions(embedding, (14, 14), (24, 8))
    assert torch.equal(resized[0], embedding[0])
    # one output position by hand: row 5, column 2 of 24 x 8
    y, x = (5 + 0.5) * 14 / 24 - 0.5, (2 + 0.5) * 14 / 8 - 0.5
    y0, x0 = int(y), int(x)
    grid = embedding[1:].reshape(14, 14, 6)
    top = grid[y0, x0] * (1 - (x - x0)) + grid[y0, x0 + 1] * (x - x0)
    bottom = grid[y0 + 1, x0] * (1 - (x - x0)) + grid[y0 + 1, x0 + 1] * (x - x0)
    torch.testing.assert_close(resized[1 + 5 * 8 + 2], top * (1 - (y - y0)) + bottom * (y - y0))


def longclip_positions(positions: torch.Tensor) -> torch.Tensor:
    """LongCLIP's formula, one row after the other."""
    count, kept = len(positions), 20
    extended = torch.zeros(4 * count - 3 * kept, positions.shape[1])
    extended[:kept] = positions[:kept]
    for i in range(count - kept):
        for part in range(4):
            row = positions[kept + i]
            if kept + i + 1 < count:
                extended[kept + 4 * i + part] = ((4 - part) * row + part * positions[kept + i + 1]) / 4
            else:
                extended[kept + 4 * i + part] = row + part * (row - positions[kept + i - 1]) / 4
    return extended


@pytest.mark.parametrize("length", [78, 100, 248])
def test_positions_beyond_those_of_the_weights_are_extended_as_in_longclip(length: int) -> None:
    torch.manual_seed(0)
    before = create_clip(architecture(), (64, 32), 16, 77).positional_embedding
    torch.manual_seed(0)
    after = create_clip(architecture(), (64, 32), 16, length).positional_embedding
    assert len(longclip_positions(before)) == 248
    torch.testing.assert_close(after, nn.Parameter(longclip_positions(before)[:length]))
    assert torch.equal(after[:20], before[:20])


@pytest.mark.parametrize("length", [8, 77])
def test_positions_of_shorter_texts_are_those_of_the_weights_bit_for_bit(length: int) -> None:
    positions = torch.randn(77, 4)
    assert torch.equal(extend_positions(positions, length), positions[:length])


@pytest.mark.parametrize(("count", "longest"), [(77, 248), (21, 24), (16, 16)])
def test_more_positions_than_an_extension_has_are_refused(count: int, longest: int) -> None:
    assert len(extend_positions(torch.randn(count, 4), longest)) == longest
    with pytest.raises(UserError, match=f"text_length: {longest + 1} tokens are more than the {longest} to which this"):
        extend_positions(torch.randn(count, 4), longest + 1)


def test_trimmed_captions_have_the_same_features_and_gradients() -> None:
    model, ids = small_model().double(), token_rows(5, 16, 9)
    weight = model.clip.token_embedding.weight
    full = model.encode_text(ids)
    (full_gradient,) = torch.autograd.grad(full.square().sum(), weight)
    trimmed = model.encode_text(ids[:, :9])
    (gradient,) = torch.autograd.grad(trimmed.square().sum(), weight)
    torch.testing.assert_close(trimmed, full)
    torch.testing.assert_close(gradient, full_gradient)


def test_global_features_are_float32_and_not_normalised() -> None:
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16):
        image, text = model.encode_image(torch.randn(2, 3, 64, 32)), model.encode_text(token_rows(2, 16, 9))
    assert image.dtype == text.dtype == torch.float32
    assert not torch.allclose(image.norm(dim=1), torch.ones(2), atol=0.01)


def test_interaction_equals_a_plain_composition_of_modules() -> None:
    model = small_model(cmt_depth=2)
    branch = model.interaction
    text, image = torch.randn(3, 16, 16), torch.randn(3, 9, 16)
    positions = torch.tensor([[1, 5, 15], [0, 0, 0], [7, 3, 0]])
    memory = branch.ln_pre_i(image)
    x, _ = branch.cross_attn(branch.ln_pre_t(text), memory, memory, need_weights=False)
    for block in branch.cross_modal_transformer.resblocks:
        normed = block.ln_1(x)
        x = x + block.attn(normed, normed, normed, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    expected = branch.ln_post(x)[torch.arange(3)[:, None], positions]
    torch.testing.assert_close(branch(text, image, positions), expected)


def test_new_parts_start_with_the_published_deviations() -> None:
    spec = {"architecture": architecture(width=512), "cmt_depth": 4, "num_classes": 2000}
    model = small_model(**spec)
    branch = model.interaction
    block = branch.cross_modal_transformer.resblocks[0]
    expected = {
        branch.cross_attn.in_proj_weight: 0.0442,
        branch.cross_attn.out_proj.weight: 0.0156,
        block.attn.in_proj_weight: 0.0442,
        block.attn.out_proj.weight: 0.0156,
        block.mlp.c_fc.weight: 0.03125,
        block.mlp.c_proj.weight: 0.0156,
        branch.mlm_head.dense.weight: 0.03125,
        branch.mlm_head.fc.weight: 0.0156,
        model.classifier.weight: 0.001,
    }
    for weight, deviation in expected.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert not model.classifier.bias.any()
    assert not branch.cross_attn.in_proj_bias.any()


def test_gelu_of_the_new_parts_is_quick() -> None:
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(small_model().interaction.mlm_head.gelu(x), x * torch.sigmoid(1.702 * x))


def test_blocks_without_a_mask_see_the_whole_sequence() -> None:
    clip = create_clip(architecture(), (64, 32), 16, 16)
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[0, -1] = torch.randn(16)
    assert not torch.allclose(
        run_blocks(clip.visual.transformer, x)[0, 0], run_blocks(clip.visual.transformer, changed)[0, 0]
    )
    torch.testing.assert_close(
        run_blocks(clip.transformer, x, causal=True)[0, 0], run_blocks(clip.transformer, changed, causal=True)[0, 0]
    )


def test_resize_equals_torch_interpolation_for_square_grids() -> None:
    embedding = torch.randn(1 + 9, 4)
    expected = F.interpolate(embedding[1:].T.reshape(1, 4, 3, 3), (6, 6), mode="bilinear").flatten(2)[0].T
    torch.testing.assert_close(resize_positions(embedding, (3, 3), (6, 6))[1:], expected)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_blocks_at_some_positions_equal_those_of_all_positions(causal: bool) -> None:
    transformer = small_model().interaction.cross_modal_transformer.double()
    torch.manual_seed(0)
    x = torch.randn(3, 16, 16, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([[1, 5, 15], [0, 0, 0], [7, 3, 0]])
    weight = torch.randn(3, 3, 16, dtype=torch.float64)  # without it, what a norm passes on sums to 0
    inputs = [x, *transformer.parameters()]
    there = torch.autograd.grad((run_blocks_at(transformer, x, positions, causal) * weight).sum(), inputs)
    everywhere = run_blocks(transformer, x, causal)[torch.arange(3)[:, None], positions]
    for one, other in zip(there, torch.autograd.grad((everywhere * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_global_features_equal_those_among_the_features_of_all_tokens() -> None:
    model = small_model().double()
    images, ids = torch.randn(4, 3, 64, 32, dtype=torch.float64), token_rows(4, 16, 12)
    ends = model.text_tokens(ids)[torch.arange(4), ids.argmax(1)]
    torch.testing.assert_close(model.encode_image(images), model.image_tokens(images)[:, 0])
    torch.testing.assert_close(model.encode_text(ids), ends)


def test_under_autocast_both_encoders_pass_bfloat16_from_block_to_block() -> None:
    model, seen = small_model(), []
    for transformer in (model.clip.visual.transformer, model.clip.transformer):
        transformer.resblocks[1].ln_1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model.image_tokens(torch.randn(2, 3, 64, 32))
        model.text_tokens(token_rows(2, 16, 12))
    assert seen == [torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize(
    ("backbone", "pretrained", "message"),
    [
        ("ViT-B-16", "openai", "with QuickGELU, unlike ViT-B-16; set train.backbone: ViT-B-16-quickgelu"),
        ("ViT-L-14", "laion2b_s32b_b82k", r"expects colours of mean \(0\.5, 0\.5, 0\.5\)"),
    ],
)
def test_weights_of_another_network_than_the_backbone_are_refused(backbone: str, pretrained: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_weights(backbone, pretrained)


@pytest.mark.parametrize(("error", "reason"), [(OSError("no route\nto host"), "no route"), (OSError(), "OSError")])
def test_weights_that_cannot_be_downloaded_say_why(
    monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    def fail(metadata: dict[str, object]) -> str:
        raise error

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(UserError, match=rf"could not be downloaded \({reason}\); without internet, name a local file"):
        find_weights("ViT-B-16-quickgelu", "openai")
