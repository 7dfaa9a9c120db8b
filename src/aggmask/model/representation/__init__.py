"""Mask representations: a bank of T x T kernels over a feature map (method.md section 3)."""
