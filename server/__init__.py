"""The coordinator: Flower ServerApp, strategies, rounds, checkpoints."""
