"""File names that identify a model, index or export folder.

They have a module of their own so that looking for them does not import torch.
"""

CONFIG, WEIGHTS = "config.json", "weights.safetensors"  # of a model
INDEX_INFO = "info.json"  # of an index
IMAGE_ENCODER, TEXT_ENCODER, EXPORT_FACTS = "image_encoder.onnx", "text_encoder.onnx", "encoders.json"  # of an export
