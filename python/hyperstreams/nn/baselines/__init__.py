"""Residual connections without Hyper-Connections, one file per family."""
