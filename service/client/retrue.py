"""The client itself: one method for each thing that the service can be asked."""

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Self

import httpx

from service.client.refusals import NotNow, StillRunning, Unreachable
from service.client.results import Accepted, Json, Predicted, RunReport, moment
from service.client.transport import Transport, segment

__all__ = ["Retrue"]

POLL_S = 0.2
LOST_S = 30.0
"""So long may a service be away while a run is waited for: a restart takes less."""


class Retrue:
    """A connection to one Retrue service. Close it, or use it as a context manager.

    What can do no harm twice is tried again when the connection breaks or the service is busy: reads, labels (the same
    label twice is one), `retrain` (under one idempotency key), `cancel` and `clear_switch`. Nothing else is: a
    prediction or a change that may have arrived is never sent a second time.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8080``.
    key
        API key, where the service asks for one.
    timeout_s
        Seconds that one try may take.
    retries
        How many further tries a safe request gets.
    http
        Instead of the network: a test's own way to an application.

    Raises
    ------
    ValueError
        If `url` is no address, or `key` can be none.

    Examples
    --------
    ::

        with Retrue("http://127.0.0.1:8080") as retrue:
            answer = retrue.predict("electricity", [{"period": 0.5, ...}])
            retrue.feedback("electricity", [{"id": answer.ids[0], "label": "UP"}])
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        self._wire = Transport(url, key=key, timeout_s=timeout_s, retries=retries, http=http)
        self.url = self._wire.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    @property
    def has_changed(self) -> bool:
        """Whether anything was sent that asks for a change."""
        return self._wire.changes > 0

    # -- predictions and labels

    def predict(self, model: str, instances: Sequence[Json] | Sequence[Sequence[Any]]) -> Predicted:
        """Return the champion's answer for `instances`: objects, or lists in the features' order.

        Raises
        ------
        BadInput
            If rows break the model's schema; its `errors` name every bad field of every bad row.
        """
        path = f"/v1/models/{segment(model)}/predict"
        return Predicted.of(self._wire.change("POST", path, json={"instances": list(instances)}))

    def feedback(self, model: str, labels: Sequence[Json]) -> Accepted:
        """Send the truth for earlier predictions: ``[{"id", "label", "observed_at"?}]``; corrections too."""
        path = f"/v1/models/{segment(model)}/feedback"
        return Accepted.of(self._wire.change("POST", path, is_safe=True, json={"labels": list(labels)}))

    def prediction(self, prediction_id: str, *, model: str | None = None) -> Json:
        """Return one recorded prediction."""
        return self._wire.read(f"/v1/predictions/{segment(prediction_id)}", params={"model": model} if model else None)

    # -- what is

    def models(self) -> list[Json]:
        """Return all models with their champions."""
        return list(self._wire.read("/v1/models")["models"])

    def model(self, model: str) -> Json:
        """Return one model."""
        return self._wire.read(f"/v1/models/{segment(model)}")

    def versions(self, model: str) -> list[Json]:
        """Return the model's versions, newest first."""
        return list(self._wire.read(f"/v1/models/{segment(model)}/versions")["versions"])

    def learned_until(self, model: str) -> datetime | None:
        """Return the event time until which the model's first version learned; None while it has none."""
        return min((moment(version["learned_until"]) for version in self.versions(model)), default=None)

    def version(self, model: str, version: int) -> Json:
        """Return one version with its lineage."""
        return self._wire.read(f"/v1/models/{segment(model)}/versions/{segment(version)}")

    def checks(self, model: str, *, limit: int = 50) -> list[Json]:
        """Return the model's checks, newest first."""
        return list(self._wire.read(f"/v1/models/{segment(model)}/checks", params={"limit": limit})["checks"])

    def check(self, model: str, check_id: str) -> Json:
        """Return one check."""
        return self._wire.read(f"/v1/models/{segment(model)}/checks/{segment(check_id)}")

    def explanation(self, check_id: str) -> Json:
        """Return why a check ended as it did, and whether it would be decided so today."""
        return self._wire.read(f"/v1/checks/{segment(check_id)}/explanation")

    def dry_run(self, model: str, policy: Json, *, last: int = 20, assume: str = "rejected") -> Json:
        """Return what a changed retrain policy would have decided on the last checks; changes nothing."""
        body = {"policy": policy, "last": last, "assume": assume}
        return self._wire.read(f"/v1/models/{segment(model)}/policy:dry-run", method="POST", json=body)

    def runs(self, *, model: str | None = None, limit: int = 50) -> list[Json]:
        """Return runs, newest first."""
        params: Json = {"limit": limit} | ({"model": model} if model else {})
        return list(self._wire.read("/v1/runs", params=params)["runs"])

    def run(self, run_id: str) -> Json:
        """Return one run."""
        return self._wire.read(f"/v1/runs/{segment(run_id)}")

    def events(self, run_id: str) -> list[Json]:
        """Return the run's transitions, the oldest first."""
        return list(self._wire.read(f"/v1/runs/{segment(run_id)}/events")["events"])

    def audit(self, *, model: str | None = None, limit: int = 50) -> list[Json]:
        """Return the audit log, newest first."""
        params: Json = {"limit": limit} | ({"model": model} if model else {})
        return list(self._wire.read("/v1/audit", params=params)["audit"])

    def is_ready(self) -> bool:
        """Return whether the service answers predictions; False also while nobody listens."""
        return self._wire.status("/readyz") == httpx.codes.OK

    def is_alive(self) -> bool:
        """Return whether a worker lives at the address, whether it can answer predictions or not."""
        return self._wire.status("/livez") == httpx.codes.OK

    # -- what shall be

    def retrain(
        self, model: str, *, reason: str, force: bool = False, key: str | None = None, join: bool = False
    ) -> Json:
        """Ask for a run; returns it as accepted.

        Parameters
        ----------
        force
            Train even on data that were tried before.
        key
            Idempotency key: asking again under the same one gives the run that was made before. A fresh one when left
            out, so that a try that got lost can be repeated.
        join
            Join a run that is in the way instead of being refused because of it.
        """
        return self._wire.change(
            "POST",
            f"/v1/models/{segment(model)}/runs",
            is_safe=True,
            json={"reason": reason, "force": force},
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            params={"on_conflict": "coalesce"} if join else {},
        )

    def accept(self, model: str, *, reason: str, check: str | None = None) -> Json:
        """Start the run that the newest check suggests; `check` names the one that was looked at."""
        body: Json = {"reason": reason} | ({"check": check} if check else {})
        return self._wire.change("POST", f"/v1/models/{segment(model)}/suggestion/accept", json=body)

    def cancel(self, run_id: str, *, reason: str) -> Json:
        """Ask for the end of a run; asking twice is asking once."""
        return self._wire.change("POST", f"/v1/runs/{segment(run_id)}/cancel", is_safe=True, json={"reason": reason})

    def approve(self, run_id: str, *, reason: str, seen: str | None = None) -> Json:
        """Let a challenger that waits for a person be promoted; `seen` is the run's ETag, by default that of now."""
        return self._decide("approve", run_id, reason=reason, seen=seen)

    def reject(self, run_id: str, *, reason: str, seen: str | None = None) -> Json:
        """Turn a waiting challenger down; `seen` as for `approve`."""
        return self._decide("reject", run_id, reason=reason, seen=seen)

    def _decide(self, verb: str, run_id: str, *, reason: str, seen: str | None) -> Json:
        path = f"/v1/runs/{segment(run_id)}/{verb}"
        return self._wire.change("POST", path, json={"reason": reason}, headers={"If-Match": seen or "*"})

    def start_check(self, model: str) -> Json:
        """Ask for a check of the newest window; returns it as accepted."""
        return self._wire.change("POST", f"/v1/models/{segment(model)}/checks", json={})

    def promote(self, model: str, version: int, *, generation: int, reason: str) -> Json:
        """Ask that `version` become champion, if the champion's generation is still `generation`."""
        return self._wire.change(
            "PUT",
            f"/v1/models/{segment(model)}/champion",
            json={"version": version, "reason": reason},
            headers={"If-Match": f'"{generation}"'},
        )

    def rollback(self, model: str, *, reason: str, to: int | None = None) -> Json:
        """Take the champion back to its predecessor, or to version `to`."""
        body: Json = {"reason": reason} | ({"to": to} if to is not None else {})
        return self._wire.change("POST", f"/v1/models/{segment(model)}/rollback", json=body)

    def set_switch(self, model: str, name: str, *, reason: str) -> Json:
        """Turn a switch of the model on: pause, freeze, pin, hold."""
        return self._wire.change("PUT", f"/v1/models/{segment(model)}/{segment(name)}", json={"reason": reason})

    def clear_switch(self, model: str, name: str, *, reason: str) -> Json:
        """Turn a switch of the model off."""
        path = f"/v1/models/{segment(model)}/{segment(name)}"
        return self._wire.change("DELETE", path, is_safe=True, params={"reason": reason})

    # -- keys

    def keys(self) -> list[Json]:
        """Return all keys, newest first."""
        return list(self._wire.read("/v1/keys")["keys"])

    def create_key(self, name: str, *, roles: Sequence[str], reason: str, expires_in: str | None = None) -> Json:
        """Make a key; its text stands under ``key`` in the answer, and never again."""
        body: Json = {"name": name, "roles": list(roles), "reason": reason}
        return self._wire.change("POST", "/v1/keys", json=body | ({"expires_in": expires_in} if expires_in else {}))

    def revoke_key(self, key_id: str, *, reason: str) -> None:
        """Take a key back, by its id or the name of a valid one."""
        self._wire.change("DELETE", f"/v1/keys/{segment(key_id)}", params={"reason": reason})

    # -- waiting

    def wait_for_run(
        self,
        run_id: str,
        *,
        deadline_s: float = 900.0,
        poll_s: float = POLL_S,
        seen: Callable[[RunReport], None] | None = None,
    ) -> RunReport:
        """Return the run once it has ended, or waits for labels, a person or the end of its probation.

        Parameters
        ----------
        seen
            Told the run each time it is looked at.

        Raises
        ------
        StillRunning
            If it is still under way after `deadline_s` seconds; it goes on.
        Unreachable, NotNow
            If the service does not answer at first, or later for `LOST_S` seconds.
        """
        ends = time.monotonic() + deadline_s
        answered_at: float | None = None
        while True:
            try:
                run = RunReport.of(self.run(run_id))
            except (Unreachable, NotNow):
                # A service that is restarted meanwhile goes on with its runs, and so does the wait.
                if answered_at is None or time.monotonic() > min(answered_at + LOST_S, ends):
                    raise
                time.sleep(poll_s)
                continue
            answered_at = time.monotonic()
            if seen is not None:
                seen(run)
            if run.is_over or run.is_waiting:
                return run
            if time.monotonic() > ends:
                msg = f"run {run_id} is still {run.state} after {deadline_s:.0f} s, and goes on"
                raise StillRunning(msg)
            time.sleep(poll_s)
