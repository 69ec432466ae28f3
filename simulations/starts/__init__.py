"""Public models that scenarios start from, and how they were made."""
