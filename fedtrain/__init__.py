"""Federated, privacy-preserving training of PyTorch models."""
