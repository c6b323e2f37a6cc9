"""Faster forms on an NVIDIA GPU: the only place that knows CUDA.

Fused kernels, one launch for what textbook ops do in several, compiled on first use for float32
and float64; and `recording`, which replays all launches of a step as one.
"""
