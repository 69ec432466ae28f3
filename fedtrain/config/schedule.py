"""What the schedules of local and server-side learning rates have in common."""


def verify_schedule(kind: str | None, *, rounds: int | None, factor: float | None) -> None:
    """Refuse keys of a schedule that has no use for them, and a schedule that lacks one.

    Raises:
        ValueError: The message begins with the key.
    """
    if kind in ("step", "plateau"):
        if rounds is None:
            raise ValueError(f"schedule_rounds is missing; schedule = '{kind}' needs it, e.g. 5")
        return
    shown = "is not set" if kind is None else f"= '{kind}'"
    for key, value in (("schedule_rounds", rounds), ("schedule_factor", factor)):
        if value is not None:
            raise ValueError(
                f"{key} = {value:g} has no effect while schedule {shown}; set schedule = 'step' or"
                " remove it"
            )
