"""Config and data that do not have a column in common, or sites whose data differs in form.

Their texts name columns and what the config says of them, never a value of a record: a site tells
them to the coordinator as they are.
"""

from fedtrain.errors import ConfigError, DataError, FedtrainError


class SchemaFault(FedtrainError):  # noqa: N818 - what its two kinds have in common
    """Config and a site's columns do not go together."""


class UnknownColumnError(SchemaFault, ConfigError):
    """The config names a column that there is not, or lacks one that there is."""


class MissingColumnError(SchemaFault, DataError):
    """The data lacks a column that the config names."""


class DifferingSchemaError(SchemaFault, DataError):
    """Sites' data is not of one form."""
