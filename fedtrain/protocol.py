"""What coordinator and site call things in the messages that they exchange.

A message holds records by name. Both ends import these names, so that neither imports the other.
"""

from typing import Final

from fedtrain.data.schema_faults import SchemaFault
from fedtrain.errors import (
    ConfigError,
    DataError,
    FedtrainError,
    PeerError,
    SiteError,
)
from fedtrain.ledger.faults import BUDGET_REASONS, BudgetError
from fedtrain.policy import PolicyError
from fedtrain.secagg.faults import RefusalError, UpdateRangeError

# Records of a message.
ARRAYS: Final = "arrays"
CONFIG: Final = "config"
METRICS: Final = "metrics"
RELEASE: Final = "release"
DESCRIPTION: Final = "description"

# In ARRAYS of a train message and its reply: the flat vector, (d,) float32.
PARAMETERS: Final = "parameters"
# Beside it in a train message of SCAFFOLD: the coordinator's control variate, (d,) float32.
CONTROL: Final = "control"
# In ARRAYS of an evaluate reply: flat metric sums, float64; empty where there are no records.
VALIDATION_SUMS: Final = "validation-sums"
TEST_SUMS: Final = "test-sums"
PART_SUMS: Final = "sums:"  # and the name of a part, see fedtrain.evaluation_parts

# In CONFIG, from the coordinator.
CONFIG_TEXT: Final = "config-text"
CONFIG_DIGEST: Final = "config-digest"
RUN_ID: Final = "run-id"
PREPARATION_TEXT: Final = "preparation-text"  # of a sum of statistics: its plan
SERVER_ROUND: Final = "server-round"
PROXIMAL_MU: Final = "proximal-mu"
UPDATE_NORM: Final = "update-norm"
RATE_FACTOR: Final = "rate-factor"

# Actions of secure aggregation (`train.secagg_share`): a site answers them from one state.
SECAGG_ACTION: Final = ".secagg_"

# Record of secure aggregation: the protocol's own message, encoded, and what it is for.
SECAGG: Final = "secagg"
SECAGG_MESSAGE: Final = "message"
SECAGG_PURPOSE: Final = "purpose"
SECAGG_COHORT: Final = "cohort"
# In ARRAYS of a reply in mode "arithmetic": the encoded vector itself, (m,) words.
WORDS: Final = "words"
# What a secure sum is taken of; part of the name of the run that sites bind their keys to.
TRAINING: Final = "train"
EVALUATION: Final = "evaluate"
STATISTICS: Final = "statistics"
# The round of each kind of statistics; in another, a site would answer them another time.
PREPARATION_ROUND: Final = 0
QUESTION_ROUND: Final = 1

# In METRICS of a reply.
WEIGHT: Final = "num-examples"
TRAIN_LOSS: Final = "train_loss"
GRADIENT_NORM: Final = "gradient_norm"  # the logarithm of its mean, to base 10
LOCAL_STEPS: Final = "local-steps"  # FedNova: the (mean) number of local steps

# In RELEASE of a train reply: the site's ledger line.
LEDGER_LINE: Final = "ledger-line"

# In DESCRIPTION of a query.describe reply.
SITE_NAME: Final = "site-name"
SITE_INDEX: Final = "site-index"
REFUSAL: Final = "refusal"
PUBLIC_TEXT: Final = "public-text"
STATISTICS_TEXT: Final = "statistics-text"

# Codes of error replies: what a site says in public; the details stay in its own log.
_PUBLIC: Final[dict[type[FedtrainError], tuple[int, str]]] = {
    ConfigError: (101, "config: the site cannot run this config"),
    DataError: (102, "data: the site's data cannot be used"),
    UpdateRangeError: (105, "out of range: the update exceeds the bound that the sum proves safe"),
    SiteError: (103, "refused: the site's policy or budget does not allow it"),
    PeerError: (104, "not finite or not fitting: the site has no usable result this round"),
}
# A refusal of secure aggregation: the text is its reason (a key of
# `fedtrain.secagg.faults.REFUSALS`), then the site that is suspected, where one is.
SECAGG_REFUSED: Final = 106
# The site's own refusals: the text is the rule's name or the budget's reason, never a number.
POLICY_REFUSED: Final = 107
BUDGET_REFUSED: Final = 108
# The site's data lacks a column of the config, or has one more: the text names it.
SCHEMA_REFUSED: Final = 109
INTERNAL_ERROR: Final = (199, "internal: the site failed; its own log has the details")
# What the coordinator writes in the name of a site that has not spoken: it may have released all
# the same.
NO_ANSWER: Final = (198, "no answer: the site's process ended or was too late")
LEFT: Final = (197, "left: the site is no member of the federation any more")
UNSPOKEN: Final = (NO_ANSWER[0], LEFT[0])
REFUSED_FOR_GOOD: Final = (POLICY_REFUSED, BUDGET_REFUSED, LEFT[0])


def describe_publicly(error: Exception) -> tuple[int, str]:
    """Return the code and the public text that a site sends instead of an exception."""
    if isinstance(error, RefusalError):
        suspect = "" if error.suspect is None else f" {error.suspect}"
        return SECAGG_REFUSED, f"{error.reason}{suspect}"
    if isinstance(error, SchemaFault):  # names columns, never a value
        return SCHEMA_REFUSED, f"schema: {error}"
    if isinstance(error, PolicyError):
        return POLICY_REFUSED, f"policy: {error.rule}"
    if isinstance(error, BudgetError):
        return BUDGET_REFUSED, f"budget: {BUDGET_REASONS[error.reason]}"
    for kind, public in _PUBLIC.items():
        if isinstance(error, kind):
            return public
    return INTERNAL_ERROR
