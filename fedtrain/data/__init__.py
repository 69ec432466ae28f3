"""Data at a site: sources, preparation, splits, partition."""
