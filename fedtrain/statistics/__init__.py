"""Federated statistics: sums over all sites' records, through secure aggregation, noised or not.

`plan` says what is asked, all of it public; `records` makes one record's values of it; `vector`
lays them out in the ring, with the noise that each site adds; `figures` reads the sum, and
withholds what rests on too few records.
"""
