"""IRRA: text-to-image person retrieval (Jiang and Ye, CVPR 2023) in PyTorch."""
