"""Where a run's figures may be shown beside those of other tools: TensorBoard and MLflow.

A sink reads a run directory and nothing else: no site, no round and no process of a run knows of
it, so that a sink that fails stops nothing, and what is sent is what the directory shows already.
"""
