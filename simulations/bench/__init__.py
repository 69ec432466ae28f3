"""`fedtrain bench simulate`: what a simulated round costs, beside a bare loop and other tools."""
