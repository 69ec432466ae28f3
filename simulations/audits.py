"""Audit methods that run federations of their own; by the entry point `fedtrain.audits`."""

from typing import Final

from fedtrain.audit.methods import Method, load_when_run

from .loading import refer_to_sibling

METHODS: Final = (
    Method(
        "membership",
        "which records were trained on: loss, LiRA and RMIA with shadow federations",
        "simulation",
        load_when_run(refer_to_sibling("simulations.membership:audit_membership")),
    ),
    Method(
        "canary-sites",
        "an estimate of a site's epsilon, by canary sites among the real ones",
        "simulation",
        load_when_run(refer_to_sibling("simulations.site_level:audit_canary_sites")),
    ),
)
