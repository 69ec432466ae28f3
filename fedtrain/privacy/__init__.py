"""Events, accounting, noise."""
