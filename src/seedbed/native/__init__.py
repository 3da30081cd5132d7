"""Kernels in C++ that PyTorch has none for."""
