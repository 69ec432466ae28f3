"""The link between a coordinator, its sites and its operators: contract, contents, TLS."""
