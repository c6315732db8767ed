"""Multi-stream residual networks (Hyper-Connections) for PyTorch."""
