"""`fedtrain bench`: a simulated round, and secure aggregation, beside floors and other tools."""
