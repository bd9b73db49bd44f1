"""File names that identify a model, index or export folder, and what the parts of an embedding are.

They have a module of their own so that asking for them does not import torch.
"""

CONFIG, WEIGHTS = "config.json", "weights.safetensors"  # of a model
INDEX_INFO = "info.json"  # of an index
IMAGE_ENCODER, TEXT_ENCODER, EXPORT_FACTS = "image_encoder.onnx", "text_encoder.onnx", "encoders.json"  # of an export


def embedding_parts(global_width: int, token_selection: float | None) -> str | None:
    """What the numbers of a model's embedding are, if it has more than one part; None otherwise.

    Args:
        global_width: Width of the global features.
        token_selection: Share of the tokens of which the model has a second feature, twice as wide; None for none.
    """
    if token_selection is None:
        return None
    selected = 2 * global_width
    return (
        f"{global_width + selected} numbers: {global_width} global (CLS / END), {selected} of the selected "
        f"{token_selection:.0%} of tokens, each of unit length, divided by sqrt 2; the cosine is the mean of both"
    )
