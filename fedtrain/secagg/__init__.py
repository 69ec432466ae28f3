"""Secure aggregation: the coordinator learns the sum over a round's survivors, or nothing.

The protocol is Bonawitz et al. 2017, figure 4, in its malicious variant: double masking, t-of-n
shares, a consistency round. Above 200 sites the graph is that of Bell et al. 2020. Every key is
bound to what its site saw (Pasquini et al. 2022). No I/O, no clock, no global state: `SiteSession`
and `CoordinatorSession` take messages and return messages, `codec` turns them into bytes.
"""

from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.coordinator import CoordinatorSession, Fault
from fedtrain.secagg.encoding import Block, VectorEncoding, make_training_encoding
from fedtrain.secagg.faults import MessageError, RefusalError, RoundVoidError, UpdateRangeError
from fedtrain.secagg.policy import SitePolicy, compute_default_threshold
from fedtrain.secagg.replay import DurableSession
from fedtrain.secagg.roster import Identity, make_roster, sign_roster, verify_roster
from fedtrain.secagg.site import SiteSession
from fedtrain.secagg.store import FileStore, MemoryStore, StateStore
from fedtrain.secagg.transcript import verify_transcript

__all__ = [
    "Block",
    "CoordinatorSession",
    "DurableSession",
    "Fault",
    "FileStore",
    "Identity",
    "MemoryStore",
    "MessageError",
    "RefusalError",
    "RoundVoidError",
    "SitePolicy",
    "SiteSession",
    "StateStore",
    "UpdateRangeError",
    "VectorEncoding",
    "compute_default_threshold",
    "decode",
    "encode",
    "make_roster",
    "make_training_encoding",
    "sign_roster",
    "verify_roster",
    "verify_transcript",
]
