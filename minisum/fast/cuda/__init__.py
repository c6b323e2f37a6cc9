"""Faster forms on an NVIDIA GPU: the only place that knows CUDA.

Fused kernels, one launch and one pass over memory for what textbook ops do in several; and
`recording`, which replays all launches of a step as one. Kernels are compiled on first use, for
float32 and float64.
"""
