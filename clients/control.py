"""What a site's owner wants of the agent: a word in a file that the running agent watches."""

from enum import StrEnum

from fedtrain.membership.files import write_file

from .agent_folder import AgentFolder


class Wish(StrEnum):
    """What is wanted."""

    RUN = "run"
    PAUSE = "pause"
    LEAVE = "leave"


def write_wish(folder: AgentFolder, wish: Wish) -> None:
    """Say what is wanted, for the running agent and for the next.

    Raises:
        SiteError: The file cannot be written.
    """
    write_file(folder.control, f"{wish}\n".encode())


def read_wish(folder: AgentFolder) -> Wish:
    """Return what is wanted; a file that says nothing known pauses: it was meant to say something.

    Guarantees:
        * A file that cannot be read never lets a site take part that was paused.
    """
    try:
        text = folder.control.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return Wish.RUN
    except (OSError, UnicodeDecodeError):
        return Wish.PAUSE
    return Wish(text) if text in set(Wish) else Wish.PAUSE
