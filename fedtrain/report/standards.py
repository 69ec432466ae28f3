"""Which field of which standard a report answers, and in which section.

Clauses are named as far as we are sure of them; the wording of what they ask is ours.
"""

from typing import Final

from fedtrain.report.document import StandardRow

NIST: Final = "NIST SP 800-226 (March 2025)"
ISO: Final = "ISO/IEC 27559:2022"
DPFY: Final = "Ponomareva et al. 2023, How to DP-fy ML, section 5.3"
DPIA: Final = "GDPR, article 35(7)"
EDPB: Final = "EDPB Opinion 28/2024"
REGISTRY: Final = "DP deployments registry (arXiv:2509.13509)"
HIPAA: Final = "45 CFR 164.514(b)(1), expert determination"

SECTIONS: Final = {
    "verdict": "Verdict",
    "guarantee": "The guarantee",
    "meaning": "The same guarantee in other terms",
    "spending": "What each site spent",
    "aggregation": "Secure aggregation by round",
    "audit": "The audit beside the bound",
    "utility": "Utility and fairness",
    "data": "Data sheet",
    "config": "The config",
    "limits": "Limits and residual risks",
    "signatures": "Who signed what",
    "standards": "Where standards find their fields",
}

_ROWS: Final = (
    (NIST, "privacy parameters: epsilon and its delta", "guarantee"),
    (NIST, "unit of privacy", "guarantee"),
    (NIST, "algorithms and their correctness", "guarantee"),
    (NIST, "utility and bias", "utility"),
    (NIST, "trust model: local, central, distributed", "guarantee"),
    (NIST, "implementation, side channels, data collection", "limits"),
    (NIST, "privacy hazards, by layer", "limits"),
    (ISO, "6.2 threat modelling", "guarantee"),
    (ISO, "7.3 attack modelling", "meaning"),
    (ISO, "8.2.2 quantifying identifiability", "meaning"),
    (ISO, "8.2.3 adversarial testing", "audit"),
    (ISO, "8.3 mitigation", "limits"),
    (DPFY, "DP setting", "guarantee"),
    (DPFY, "DP definition: data accesses covered, final output, unit, adjacency", "guarantee"),
    (DPFY, "accounting: type, assumptions, formal statement, use of sampling", "guarantee"),
    (DPFY, "transparency and verifiability", "signatures"),
    (DPIA, "(a) systematic description of the processing", "data"),
    (DPIA, "(b) necessity and proportionality", "utility"),
    (DPIA, "(c) risks to the rights and freedoms of persons", "meaning"),
    (DPIA, "(d) measures to address the risks", "guarantee"),
    (EDPB, "likelihood of extracting personal data, with documentation", "audit"),
    (HIPAA, "risk of identification, with methods and results", "meaning"),
    (REGISTRY, "an entry in the registry's shape: registry.yaml", "guarantee"),
)


def build_standards() -> tuple[StandardRow, ...]:
    """Return the table."""
    return tuple(
        StandardRow(source=source, field=field, section=section) for source, field, section in _ROWS
    )
