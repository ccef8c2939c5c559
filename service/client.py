"""A small typed client: what the command line and the replay use, and anybody's program may."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from service.domain.run import TERMINAL, RunState

__all__ = ["Json", "Refused", "Retrue", "Unreachable", "moment"]

Json = dict[str, Any]

FINISHED = frozenset(state.value for state in TERMINAL)
"""States that a run never leaves."""

WAITING = frozenset({RunState.AWAITING_LABELS.value, RunState.AWAITING_APPROVAL.value, RunState.PROBATION.value})
"""States in which a run waits for the world or for a person; waiting for it to finish makes no sense."""


class Refused(Exception):
    """The service answered with a problem.

    Attributes
    ----------
    status
        HTTP status.
    problem
        The RFC 9457 document, as decoded.
    """

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.problem = problem
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))

    @property
    def code(self) -> str:
        """The stable slug of the problem."""
        return str(self.problem.get("code", ""))


class Unreachable(Exception):
    """Nobody answers at the address."""


class Retrue:
    """A connection to one Retrue service.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8080``.
    key
        API key, where the service asks for one.
    timeout_s
        Seconds that one request may take.

    Examples
    --------
    ::

        with Retrue("http://127.0.0.1:8080") as retrue:
            answer = retrue.predict("electricity", [{"period": 0.5, ...}])
            retrue.feedback("electricity", [{"id": answer["ids"][0], "label": "UP"}])
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # -- predictions and labels

    def predict(self, model: str, instances: Sequence[Json] | Sequence[Sequence[Any]]) -> Json:
        """Return the answer for `instances`: model, version, generation, predictions, ids."""
        return self._json("POST", f"/v1/models/{model}/predict", json={"instances": list(instances)})

    def feedback(self, model: str, labels: Sequence[Json]) -> Json:
        """Send the truth for earlier predictions: ``[{"id", "label", "observed_at"?}]``."""
        return self._json("POST", f"/v1/models/{model}/feedback", json={"labels": list(labels)})

    def prediction(self, prediction_id: str, *, model: str | None = None) -> Json:
        """Return one recorded prediction."""
        return self._json("GET", f"/v1/predictions/{prediction_id}", params={"model": model} if model else None)

    # -- what is

    def models(self) -> list[Json]:
        """Return all models with their champions."""
        return list(self._json("GET", "/v1/models")["models"])

    def model(self, model: str) -> Json:
        """Return one model."""
        return self._json("GET", f"/v1/models/{model}")

    def versions(self, model: str) -> list[Json]:
        """Return the model's versions, newest first."""
        return list(self._json("GET", f"/v1/models/{model}/versions")["versions"])

    def learned_until(self, model: str) -> datetime | None:
        """Return the event time until which the model's first version learned; None while it has none."""
        return min((moment(version["learned_until"]) for version in self.versions(model)), default=None)

    def version(self, model: str, version: int) -> Json:
        """Return one version with its lineage."""
        return self._json("GET", f"/v1/models/{model}/versions/{version}")

    def checks(self, model: str, *, limit: int = 50) -> list[Json]:
        """Return the model's checks, newest first."""
        return list(self._json("GET", f"/v1/models/{model}/checks", params={"limit": limit})["checks"])

    def check(self, model: str, check_id: str) -> Json:
        """Return one check."""
        return self._json("GET", f"/v1/models/{model}/checks/{check_id}")

    def explanation(self, check_id: str) -> Json:
        """Return why a check ended as it did, and whether it would be decided so today."""
        return self._json("GET", f"/v1/checks/{check_id}/explanation")

    def dry_run(self, model: str, policy: Json, *, last: int = 20, assume: str = "rejected") -> Json:
        """Return what a changed retrain policy would have decided on the last checks; changes nothing."""
        body = {"policy": policy, "last": last, "assume": assume}
        return self._json("POST", f"/v1/models/{model}/policy:dry-run", json=body)

    def runs(self, *, model: str | None = None, limit: int = 50) -> list[Json]:
        """Return runs, newest first."""
        params: Json = {"limit": limit} | ({"model": model} if model else {})
        return list(self._json("GET", "/v1/runs", params=params)["runs"])

    def run(self, run_id: str) -> Json:
        """Return one run."""
        return self._json("GET", f"/v1/runs/{run_id}")

    def audit(self, *, model: str | None = None, limit: int = 50) -> list[Json]:
        """Return the audit log, newest first."""
        params: Json = {"limit": limit} | ({"model": model} if model else {})
        return list(self._json("GET", "/v1/audit", params=params)["audit"])

    def is_ready(self) -> bool:
        """Return whether the service answers predictions; False also while nobody listens."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    # -- what shall be

    def retrain(
        self, model: str, *, reason: str, force: bool = False, key: str | None = None, join: bool = False
    ) -> Json:
        """Ask for a run; returns it as accepted. With `join` a run in the way is joined instead of refusing this."""
        return self._json(
            "POST",
            f"/v1/models/{model}/runs",
            json={"reason": reason, "force": force},
            headers={"Idempotency-Key": key} if key else {},
            params={"on_conflict": "coalesce"} if join else {},
        )

    def accept(self, model: str, *, reason: str, check: str | None = None) -> Json:
        """Start the run that the newest check suggests; `check` names the one that was looked at."""
        body: Json = {"reason": reason} | ({"check": check} if check else {})
        return self._json("POST", f"/v1/models/{model}/suggestion/accept", json=body)

    def cancel(self, run_id: str, *, reason: str) -> Json:
        """Ask for the end of a run."""
        return self._json("POST", f"/v1/runs/{run_id}/cancel", json={"reason": reason})

    def approve(self, run_id: str, *, reason: str, seen: str | None = None) -> Json:
        """Let a challenger that waits for a person be promoted; `seen` is the run's ETag, by default that of now."""
        return self._decide("approve", run_id, reason=reason, seen=seen)

    def reject(self, run_id: str, *, reason: str, seen: str | None = None) -> Json:
        """Turn a waiting challenger down; `seen` as for `approve`."""
        return self._decide("reject", run_id, reason=reason, seen=seen)

    def _decide(self, verb: str, run_id: str, *, reason: str, seen: str | None) -> Json:
        path = f"/v1/runs/{run_id}/{verb}"
        return self._json("POST", path, json={"reason": reason}, headers={"If-Match": seen or "*"})

    def start_check(self, model: str) -> Json:
        """Ask for a check of the newest window; returns it as accepted."""
        return self._json("POST", f"/v1/models/{model}/checks", json={})

    def promote(self, model: str, version: int, *, generation: int, reason: str) -> Json:
        """Ask that `version` become champion, if the champion's generation is still `generation`."""
        return self._json(
            "PUT",
            f"/v1/models/{model}/champion",
            json={"version": version, "reason": reason},
            headers={"If-Match": f'"{generation}"'},
        )

    def rollback(self, model: str, *, reason: str, to: int | None = None) -> Json:
        """Take the champion back to its predecessor, or to version `to`."""
        body: Json = {"reason": reason} | ({"to": to} if to is not None else {})
        return self._json("POST", f"/v1/models/{model}/rollback", json=body)

    def set_switch(self, model: str, name: str, *, reason: str) -> Json:
        """Turn a switch of the model on: pause, freeze, pin, hold."""
        return self._json("PUT", f"/v1/models/{model}/{name}", json={"reason": reason})

    def clear_switch(self, model: str, name: str, *, reason: str) -> Json:
        """Turn a switch of the model off."""
        return self._json("DELETE", f"/v1/models/{model}/{name}", params={"reason": reason})

    # -- keys

    def keys(self) -> list[Json]:
        """Return all keys, newest first."""
        return list(self._json("GET", "/v1/keys")["keys"])

    def create_key(self, name: str, *, roles: Sequence[str], reason: str, expires_in: str | None = None) -> Json:
        """Make a key; its text stands under ``key`` in the answer, and never again."""
        body: Json = {"name": name, "roles": list(roles), "reason": reason}
        return self._json("POST", "/v1/keys", json=body | ({"expires_in": expires_in} if expires_in else {}))

    def revoke_key(self, key_id: str, *, reason: str) -> None:
        """Take a key back, by its id or the name of a valid one."""
        self._json("DELETE", f"/v1/keys/{quote(key_id, safe='')}", params={"reason": reason})

    # -- waiting

    def wait_for_run(
        self, run_id: str, *, deadline_s: float = 900.0, seen: Callable[[Json], None] | None = None
    ) -> Json:
        """Return the run once it has ended, or waits for labels or a person.

        Raises
        ------
        TimeoutError
            If it is still under way after `deadline_s` seconds.
        """
        ends = time.monotonic() + deadline_s
        while True:
            run = self.run(run_id)
            if seen is not None:
                seen(run)
            if run["state"] in FINISHED | WAITING:
                return run
            if time.monotonic() > ends:
                msg = f"run {run_id} is still {run['state']} after {deadline_s:.0f} s"
                raise TimeoutError(msg)
            time.sleep(0.2)

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        with self._reachable():
            response = self._http.request(method, path, **arguments)
        if response.is_success:
            if response.status_code == httpx.codes.NO_CONTENT:
                return {}
            return dict(response.json())
        try:
            problem = dict(response.json())
        except ValueError:
            problem = {"title": response.reason_phrase}
        raise Refused(response.status_code, problem)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            msg = f"no Retrue service answers at {self.url}: start one with `retrue serve`, or name another with --url"
            raise Unreachable(msg) from error


def moment(text: str) -> datetime:
    """Return the UTC moment that an RFC 3339 text names."""
    return datetime.fromisoformat(text).astimezone(UTC)
