"""What a run directory claims, held against what can be recomputed from it."""
