"""A site's own ledger of a data set: what every run ever cost, and what is left of its budget.

Not to be taken for `fedtrain.privacy.ledger`, the ledger of one run, which the coordinator writes.
"""
