"""An entry in the shape of the public registry of differential privacy deployments.

The keys are those of the registry's own files (product, flavour, privacy loss, model, accounting,
implementation); what only a person can say is left out, for the registry's editors to ask.

References:
    Dwork, Kohli, Mulligan 2019 proposed such a registry; its schema: arXiv:2509.13509.
"""

import re
from typing import Any, Final

from fedtrain.report.document import Guarantee, Report
from fedtrain.report.figures import join_words
from fedtrain.report.yaml_text import to_yaml

UNITS: Final = {"record": "record-level", "person": "person-level", "site": "site-level"}
_FIELDS: Final = {
    "setting": 1,
    "unit": 2,
    "relation": 3,
    "covered": 4,
    "mechanism": 5,
    "accountant": 6,
    "numbers": 7,
    "tuning": 8,
    "limits": 12,
}


def render_entry(report: Report) -> str:
    """Return the registry's YAML of a report."""
    return to_yaml(build_entry(report))


def build_entry(report: Report) -> dict[str, Any]:
    """Return the entry as a tree."""
    texts = {one.number: one.text for one in report.statement}
    said = {name: texts.get(number, "") for name, number in _FIELDS.items()}
    slug = re.sub(r"[^a-z0-9]+", "-", report.run.name.lower()).strip("-") or "run"
    return {
        "url_slug": f"{slug}-{report.run.config_digest[:8]}",
        "status": "Draft",
        "deployment": {
            "product": {
                "name": report.run.name,
                "data_product_type": "Machine learning model",
                "description": f"{report.run.model}, trained by {report.run.sites} sites with"
                f" federated learning in {report.run.rounds_done} rounds.",
            },
            "dp_flavor": {
                "name": "Approximate DP" if report.guarantees else "None",
                "bound_on_input_distance": said["relation"],
                "unprotected_quantities": said["limits"],
            },
            "privacy_loss": {
                "privacy_unit": join_words(
                    list(dict.fromkeys(UNITS[one.unit] for one in report.guarantees))
                )
                if report.guarantees
                else "none",
                "privacy_unit_description": said["unit"],
                "privacy_parameters": _list_parameters(report.guarantees),
                "privacy_parameters_description": said["numbers"],
            },
            "model": {
                "model_name": _name_model(report),
                "model_name_description": said["setting"],
                "actors": said["covered"],
                "release_type": "Many releases",
                "release_type_description": "A model after every round, and the final one.",
                "data_source_type": "Static",
                "access_type": "Non-interactive",
            },
            "accounting": {
                "post_processing": "Aggregation and everything after it is post-processing.",
                "composition": said["accountant"],
            },
            "implementation": {
                "pre_processing_eda_hyperparameter_tuning": said["tuning"],
                "mechanisms": said["mechanism"],
            },
        },
    }


def _list_parameters(guarantees: tuple[Guarantee, ...]) -> dict[str, Any] | None:
    """Return epsilon and delta of the first guarantee; others are in the description."""
    if not guarantees or guarantees[0].epsilon is None:
        return None
    return {"epsilon": guarantees[0].epsilon, "delta": guarantees[0].delta}


def _name_model(report: Report) -> str:
    """Return who is trusted, in the registry's words."""
    units = {one.unit for one in report.guarantees}
    if not units:
        return "None"
    if "site" not in units:
        return "Local"
    return "Distributed" if report.secure_aggregation.mode == "protocol" else "Central"
