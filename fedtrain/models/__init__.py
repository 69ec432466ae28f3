"""Named architectures, and what differential privacy forbids."""
