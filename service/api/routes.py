"""Which right each route asks for: one closed table. What does not stand here is there for admins alone."""

import re
from collections.abc import Mapping

from starlette.routing import compile_path

from service.domain.access import Right

__all__ = ["ROUTES", "Methods", "Table"]

PREDICT, DESCRIBE, READ, OPERATE = Right.PREDICT, Right.DESCRIBE, Right.READ, Right.OPERATE
ROLL_BACK, APPROVE, ADMINISTER = Right.ROLL_BACK, Right.APPROVE, Right.ADMINISTER
Methods = Mapping[str, Right | None]

ROUTES: dict[str, Methods] = {
    # None: whoever reaches the address.
    "/livez": {"GET": None},
    "/readyz": {"GET": None},
    "/metrics": {"GET": None},
    "/docs": {"GET": None},
    "/docs/assets/{path:path}": {"GET": None},
    # It names the features of every model.
    "/openapi.json": {"GET": READ},
    "/v1/models/{model}/predict": {"POST": PREDICT},
    "/v1/models/{model}/feedback": {"POST": PREDICT},
    # The Open Inference Protocol. Health is whoever's, as above.
    "/v2/health/live": {"GET": None},
    "/v2/health/ready": {"GET": None},
    "/v2": {"GET": DESCRIBE},
    "/v2/": {"GET": DESCRIBE},
    "/v2/models/{model}": {"GET": DESCRIBE},
    "/v2/models/{model}/ready": {"GET": DESCRIBE},
    "/v2/models/{model}/infer": {"POST": PREDICT},
    "/v2/models/{model}/versions/{version}": {"GET": DESCRIBE},
    "/v2/models/{model}/versions/{version}/ready": {"GET": DESCRIBE},
    "/v2/models/{model}/versions/{version}/infer": {"POST": PREDICT},
    "/v2/repository/index": {"POST": DESCRIBE},
    "/v1/models": {"GET": READ},
    "/v1/models/{model}": {"GET": READ},
    "/v1/models/{model}/versions": {"GET": READ},
    "/v1/models/{model}/versions/{version}": {"GET": READ},
    "/v1/models/{model}/versions/{version}/card": {"GET": READ},
    "/v1/models/{model}/checks": {"GET": READ, "POST": OPERATE},
    "/v1/models/{model}/checks/{check_id}": {"GET": READ},
    "/v1/models/{model}/checks/{check_id}/report": {"GET": READ},
    "/v1/models/{model}/runs": {"POST": OPERATE},
    "/v1/checks/{check_id}/explanation": {"GET": READ},
    # It writes nothing.
    "/v1/models/{model}/policy:dry-run": {"POST": READ},
    "/v1/models/{model}/suggestion/accept": {"POST": OPERATE},
    "/v1/runs": {"GET": READ},
    "/v1/runs/{run_id}": {"GET": READ},
    "/v1/runs/{run_id}/events": {"GET": READ},
    "/v1/runs/{run_id}/data-summary": {"GET": READ},
    "/v1/runs/{run_id}/cancel": {"POST": OPERATE},
    "/v1/runs/{run_id}/approve": {"POST": APPROVE},
    "/v1/runs/{run_id}/reject": {"POST": APPROVE},
    "/v1/models/{model}/champion": {"PUT": APPROVE},
    "/v1/models/{model}/rollback": {"POST": ROLL_BACK},
    "/v1/models/{model}/{switch:switch}": {"PUT": OPERATE, "DELETE": OPERATE},
    "/v1/predictions/{prediction_id}": {"GET": READ},
    "/v1/audit": {"GET": READ},
    "/v1/webhooks/deliveries": {"GET": READ},
    "/v1/webhooks/deliveries/{delivery_id}/resend": {"POST": OPERATE},
    "/v1/keys": {"GET": ADMINISTER, "POST": ADMINISTER},
    "/v1/keys/{key_id}": {"DELETE": ADMINISTER},
}


class Table:
    """`routes` by address, matched just as the router does."""

    def __init__(self, routes: Mapping[str, Methods]) -> None:
        self._patterns: list[tuple[re.Pattern[str], Methods]] = [
            (compile_path(template)[0], methods) for template, methods in routes.items()
        ]

    def at(self, path: str) -> dict[str, Right | None]:
        """Return what the address asks for by method; nothing: there is no such address."""
        found: dict[str, Right | None] = {}
        for pattern, methods in self._patterns:
            if pattern.match(path):
                found = {**methods, **found}  # the first that matches counts, as for the router
        return found
