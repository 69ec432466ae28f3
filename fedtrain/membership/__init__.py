"""Who belongs to a deployed federation: signed by its offline root, pinned by every member.

A member makes its own keys and a request; the root approves it and hands back a kit: certificate
and membership, nothing secret. Adding, renewing or revoking one member makes a newer membership,
which the others fetch and check against the root that they pinned; they need no new kit. No socket,
no coordinator is trusted here.
"""
