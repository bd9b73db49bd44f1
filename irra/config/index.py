"""The section `index` of params.yaml."""

from typing import Literal

from irra.config.section import ConfigSection, Count, Device, Precision, Split, param


class IndexConfig(ConfigSection):
    """Which pictures are searched, and how their embeddings are kept."""

    split: Split = param("test", "the gallery that is searched")
    dtype: Literal["float32", "float16"] = param("float16", "float32: twice the size, for the last digits of a score")
    test_batch_size: Count = param(512, "images encoded at once")
    precision: Precision = param("fp16", "of the forward pass")
    device: Device = param("auto", "auto: the first of the others that is available")
