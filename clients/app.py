"""The site's Flower ClientApp: `fedtrain.clients.app:app`.

Runs on every grid: the in-process one, a SuperNode, the Ray engine. The node's own configuration
says which site it is (`partition-id`), and may name its own data (`data-path`).
"""

import logging
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedtrain.errors import FedtrainError
from fedtrain.protocol import describe_publicly

from . import handlers, secure
from .flower import make_error_reply

log = logging.getLogger("fedtrain.clients")

Handler = Callable[[Message, Context], Message]


def guard(handler: Handler) -> Handler:
    """Turn every exception into a public code; what happened stays in the site's own log."""

    def guarded(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except FedtrainError as error:
            log.warning("site_error kind=%s message=%s", error.code, error)
            return make_error_reply(message, *describe_publicly(error))
        except Exception as error:  # the outermost guard of a site
            log.exception("site_failed")
            return make_error_reply(message, *describe_publicly(error))

    return guarded


app = ClientApp()
app.query("describe")(guard(handlers.describe))
app.train()(guard(handlers.train))
app.evaluate()(guard(handlers.evaluate))
app.train("secagg_advertise")(guard(secure.advertise))
app.train("secagg_share")(guard(secure.share))
app.train("secagg_mask")(guard(secure.mask))
app.train("secagg_sign")(guard(secure.sign))
app.train("secagg_unmask")(guard(secure.unmask))
app.train("encode_plainly")(guard(secure.encode_plainly))
