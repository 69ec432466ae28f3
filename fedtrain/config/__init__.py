"""The run configuration: one typed schema, read from TOML, with one digest.

Every value that shapes a run is a field of a section; a module holds the sections of one subject,
`whole` the config and the rules between sections. A config is frozen; unknown keys are refused
with the nearest known name. `load_config` reads and checks a file, `resolve` (in
`fedtrain.resolution`) fills in what follows from the rest, and `compute_digest` names the result.
"""

from fedtrain.config.attackers import AttackersSection
from fedtrain.config.audit import AuditSection
from fedtrain.config.compression import CompressionSection
from fedtrain.config.continual import ContinualSection
from fedtrain.config.data import DataSection, PartitionSection
from fedtrain.config.federation import (
    AVERAGING_STRATEGIES,
    DEFAULT_PROXIMAL_MU,
    STRATEGIES,
    FederationSection,
)
from fedtrain.config.model import ModelSection
from fedtrain.config.personalisation import PersonalisationSection
from fedtrain.config.privacy import PrivacySection, SitePrivacySection
from fedtrain.config.reading import build_config, describe_problem, load_config, parse_config
from fedtrain.config.run import RunSection, SimulationSection
from fedtrain.config.section import Section
from fedtrain.config.secure_aggregation import SecureAggregationSection
from fedtrain.config.statistics import StatisticsSection
from fedtrain.config.training import TrainingSection
from fedtrain.config.whole import Config
from fedtrain.config.writing import LOCAL_KEYS, compute_digest, to_toml, to_tree

__all__ = [
    "AVERAGING_STRATEGIES",
    "DEFAULT_PROXIMAL_MU",
    "LOCAL_KEYS",
    "STRATEGIES",
    "AttackersSection",
    "AuditSection",
    "CompressionSection",
    "Config",
    "ContinualSection",
    "DataSection",
    "FederationSection",
    "ModelSection",
    "PartitionSection",
    "PersonalisationSection",
    "PrivacySection",
    "RunSection",
    "Section",
    "SecureAggregationSection",
    "SimulationSection",
    "SitePrivacySection",
    "StatisticsSection",
    "TrainingSection",
    "build_config",
    "compute_digest",
    "describe_problem",
    "load_config",
    "parse_config",
    "to_toml",
    "to_tree",
]
