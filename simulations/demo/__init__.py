"""A deployed federation on one machine, to look at."""
