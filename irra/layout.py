"""Names of the files that tell what a folder is; a module of its own, since the rest of a model needs torch."""

CONFIG, WEIGHTS = "config.json", "weights.safetensors"  # of a model
INDEX_INFO = "info.json"  # of an index
IMAGE_ENCODER, TEXT_ENCODER, EXPORT_FACTS = "image_encoder.onnx", "text_encoder.onnx", "encoders.json"  # of an export
