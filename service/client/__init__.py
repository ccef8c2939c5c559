"""The typed Python client: what the command line and the replay use, and anybody's program may.

::

    from service.client import Retrue

    with Retrue("http://127.0.0.1:8080") as retrue:
        answer = retrue.predict("electricity", [{"period": 0.5, "nswprice": 0.06}])
        retrue.feedback("electricity", [{"id": answer.ids[0], "label": "UP"}])

`docs/cli.md` tells the whole story, with an example that a test runs.
"""

from service.client.refusals import (
    BadInput,
    ClientError,
    Failed,
    InTheWay,
    NotNow,
    NotPermitted,
    NotSignedIn,
    NotThere,
    Refused,
    StillRunning,
    TooOften,
    TooSlow,
    Unreachable,
)
from service.client.results import FINISHED, WAITING, Accepted, Clause, Json, Predicted, RunReport, moment
from service.client.retrue import Retrue

__all__ = [
    "FINISHED",
    "WAITING",
    "Accepted",
    "BadInput",
    "Clause",
    "ClientError",
    "Failed",
    "InTheWay",
    "Json",
    "NotNow",
    "NotPermitted",
    "NotSignedIn",
    "NotThere",
    "Predicted",
    "Refused",
    "Retrue",
    "RunReport",
    "StillRunning",
    "TooOften",
    "TooSlow",
    "Unreachable",
    "moment",
]
