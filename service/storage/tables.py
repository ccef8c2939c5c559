"""The SQL tables. One description serves SQLite and PostgreSQL; Alembic's migrations follow it."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

from service.storage.columns import Counter, Json, Moment

__all__ = [
    "audit",
    "audit_head",
    "champions",
    "checks",
    "deliveries",
    "holdout_uses",
    "keys",
    "leases",
    "metadata",
    "models",
    "notices",
    "probations",
    "replica_models",
    "replicas",
    "run_events",
    "runs",
    "sessions",
    "swaps",
    "switches",
    "versions",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("spec", Json, nullable=True),  # resolved: task, metric, schema (features), policies, source; never code
    Column("spec_digest", String(64), nullable=True),
    Column("file", Text, nullable=True),
    Column("error", Text, nullable=True),  # why the file can't be used now; the champion serves on
    Column("registered_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

switches = Table(
    "switches",
    metadata,
    Column("model", String(63), ForeignKey("models.name"), primary_key=True),
    # pause (schedule only) | freeze (no training, no promotion) | pin (champion fixed) | hold (no automatic promotion)
    # | quarantine (data broken upstream) | breaker (too many runs broke: runs are only suggested)
    Column("name", String(16), primary_key=True),
    Column("value", Json, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=True),
)

versions = Table(
    "versions",
    metadata,
    Column("model", String(63), ForeignKey("models.name"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("run_id", String(36), nullable=True),
    Column("parent", Integer, nullable=True),  # the champion when the run began
    Column("artifact", String(64), nullable=False),  # sha256 of the joblib file
    Column("manifest", Json, nullable=False),  # schema, golden rows, library versions: what a load needs
    Column("lineage", Json, nullable=False),
    Column("metrics", Json, nullable=False),  # holdout: {"value", "loss", "metric", "n", "ci": [low, high]}
    Column("reference", Json, nullable=False),  # the snapshot that its checks compare with
    Column("calibration", Json, nullable=True),  # what clean windows of it show; null: made by an older release
    Column("learned_until", Moment, nullable=False),  # newest event time in its training rows
    Column("created_at", Moment, nullable=False),
)

champions = Table(
    "champions",
    metadata,
    Column("model", String(63), ForeignKey("models.name"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("generation", Counter, nullable=False),
    Column("previous_version", Integer, nullable=True),
    Column("changed_at", Moment, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

swaps = Table(
    "swaps",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), ForeignKey("models.name"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", String(16), nullable=False),  # promote | rollback
    Column("state", String(16), nullable=False),  # waiting (replicas pre-load) | committed | failed
    Column("expected_generation", Counter, nullable=False),
    Column("generation", Counter, nullable=True),  # what the commit made it
    Column("previous_version", Integer, nullable=True),
    Column("run_id", String(36), nullable=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error", Text, nullable=True),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment, nullable=True),
    Column("event_time", Moment, nullable=True),  # where the data stood: places the swap on a replayed time line
    Column("settled_at", Moment, nullable=True),  # when the last live replica had rebound: the mixed window's end
    Index(
        "one_waiting_swap_per_model",
        "model",
        unique=True,
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_swaps_model_generation", "model", "generation"),
)

probations = Table(
    "probations",
    metadata,
    Column("model", String(63), ForeignKey("models.name"), primary_key=True),
    Column("generation", Counter, primary_key=True, autoincrement=False),  # what the promotion made it
    Column("version", Integer, nullable=False),
    Column("previous_version", Integer, nullable=False),  # what it is compared with, and goes back to
    Column("run_id", String(36), nullable=True),  # null for a promotion by hand
    Column("state", String(16), nullable=False),  # watching | kept | rolled_back | ended (another champion came)
    Column("began_at", Moment, nullable=False),
    Column("began_event_time", Moment, nullable=True),  # where the data stood: the watch lasts in event time
    Column("extended", Integer, nullable=False, server_default=text("0")),
    Column("evidence", Json, nullable=True),  # the newest look: errors, latency, outputs, realised metric, in figures
    Column("code", String(48), nullable=True),  # slug of the outcome: clean, unproven, errors, latency …
    Column("reason", Text, nullable=True),
    Column("ended_at", Moment, nullable=True),
    Column("ended_event_time", Moment, nullable=True),
    Index(
        "one_open_probation_per_model",
        "model",
        unique=True,
        sqlite_where=text("state = 'watching'"),
        postgresql_where=text("state = 'watching'"),
    ),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),  # UUIDv7: sorts by time
    Column("model", String(63), ForeignKey("models.name"), nullable=False),
    Column("state", String(24), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("trigger", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("force", Boolean, nullable=False, server_default=text("false")),
    Column("idempotency_key", String(200), nullable=True),
    Column("request_digest", String(64), nullable=True),  # the same key with another body is refused
    Column("check_id", String(36), nullable=True),  # the evidence
    Column("until", Moment, nullable=True),  # event time the run may look up to; the newest when null
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("token", Counter, nullable=True),  # fencing token of the leader that works on it
    Column("version", Integer, nullable=True),
    Column("code", String(48), nullable=True),  # slug of the outcome: no_new_data, train_error, gate_fail …
    Column("detail", Text, nullable=True),
    Column("snapshot", Json, nullable=True),  # tables, versions, filter, rows, digest
    Column("snapshot_digest", String(64), nullable=True),
    Column("candidates", Json, nullable=True),
    Column("gate", Json, nullable=True),
    Column("progress", Json, nullable=True),  # {"step", "done", "of", "words"}
    Column("seconds", Json, nullable=True),  # wall-clock seconds spent in each state
    Column("peak_bytes", Counter, nullable=True),
    Column("requested_at", Moment, nullable=False),
    Column("started_at", Moment, nullable=True),
    Column("heartbeat_at", Moment, nullable=True),
    Column("finished_at", Moment, nullable=True),
    Column("decided_event_time", Moment, nullable=True),  # where the data stood when it ended: cooldowns count from it
    Column("not_before", Moment, nullable=True),  # a run that is tried again waits until then
    Index(
        "one_active_run_per_model", "model", unique=True, sqlite_where=text("active"), postgresql_where=text("active")
    ),
    Index(
        "one_run_per_idempotency_key",
        "model",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("ix_runs_model_requested_at", "model", "requested_at"),
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", String(36), ForeignKey("runs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("before", String(24), nullable=True),
    Column("after", String(24), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("token", Counter, nullable=True),
    Column("code", String(48), nullable=True),  # slug of what led to it: retries are counted by it
)

holdout_uses = Table(
    "holdout_uses",
    metadata,
    Column("model", String(63), ForeignKey("models.name"), primary_key=True),
    Column("run_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("after", Moment, nullable=False),  # event time, exclusive
    Column("until", Moment, nullable=False),  # event time, inclusive
    Column("rows", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),  # pass | fail | inconclusive: what those rows were made to say
    Column("at", Moment, nullable=False),
    Index("ix_holdout_uses_model_until", "model", "until"),
)

checks = Table(
    "checks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), ForeignKey("models.name"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("actor", Text, nullable=False),  # schedule, or who asked
    Column("version", Integer, nullable=True),  # the champion whose reference was used
    Column("generation", Counter, nullable=True),
    Column("window_from", Moment, nullable=True),  # event time, exclusive
    Column("window_until", Moment, nullable=True),  # event time, inclusive
    Column("rows", Integer, nullable=True),
    Column("verdict", String(16), nullable=True),
    Column("reason", Text, nullable=True),
    Column("examination", Json, nullable=True),
    Column("situation", Json, nullable=True),  # what the decision rested on
    Column("decision", Json, nullable=True),
    Column("policy", Json, nullable=True),  # the retrain policy that it was made by
    Column("reading", Json, nullable=True),  # what the evidence reads as
    Column("degraded", Boolean, nullable=True),
    Column("run_id", String(36), nullable=True),  # the run it started
    Column("lake_version", Counter, nullable=True),
    Column("report", Text, nullable=True),  # path of the HTML evidence below the home's reports/
    Column("error", Text, nullable=True),
    Column("token", Counter, nullable=True),
    Column("requested_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=True),
    Column("seconds", Json, nullable=True),
    Column("peak_bytes", Counter, nullable=True),  # resident memory of its process
    Index(
        "one_active_check_per_model", "model", unique=True, sqlite_where=text("active"), postgresql_where=text("active")
    ),
    Index("ix_checks_model_requested_at", "model", "requested_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Counter, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(48), nullable=False),
    Column("model", String(63), nullable=True),
    Column("subject", Text, nullable=True),  # a run's id, a version, a generation
    Column("reason", Text, nullable=False),
    Column("facts", Json, nullable=False),
    Column("digest", String(64), nullable=False),  # over this row and the digest before it
    Column("origin", Json, nullable=True),  # from where: via, address, key; null where the service acted by itself
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Counter, nullable=False),
    Column("digest", String(64), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("name", String(64), nullable=False),  # the actor in runs, swaps and the audit
    Column("roles", Json, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the whole key; the key itself is nowhere
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Moment, nullable=True),
    Column("revoked_at", Moment, nullable=True),  # a row stays for ever: the audit names its id
    Column("last_used_at", Moment, nullable=True),  # to the minute
    Index(
        "one_key_per_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the cookie's value
    Column("key_id", String(8), ForeignKey("keys.id"), nullable=False),  # it ends with its key
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    Column("id", String(36), primary_key=True),  # the event's id, the same each time that it is told
    Column("kind", String(48), nullable=False),
    Column("model", String(63), nullable=False),
    Column("subject", Text, nullable=False),  # the address of what it is about
    Column("at", Moment, nullable=False),
    Column("data", Json, nullable=False),
    Column("spread", Boolean, nullable=False),  # whether it has its deliveries
    Index("notices_to_spread", "at", sqlite_where=text("NOT spread"), postgresql_where=text("NOT spread")),
    Index("ix_notices_at", "at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("notice_id", String(36), ForeignKey("notices.id"), nullable=False),
    Column("endpoint", Text, nullable=False),  # host and digest: the address may hold a token
    Column("state", String(16), nullable=False),  # waiting | delivered | dead
    Column("tries", Integer, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("tried_at", Moment, nullable=True),
    Column("status", Integer, nullable=True),  # what it answered last
    Column("error", Text, nullable=True),
    Column("ended_at", Moment, nullable=True),
    Index("one_delivery_per_endpoint", "notice_id", "endpoint", unique=True),
    Index("ix_deliveries_state_next_at", "state", "next_at"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("token", Counter, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("worker", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("heartbeat_at", Moment, nullable=False),
)

replica_models = Table(
    "replica_models",
    metadata,
    Column("replica_id", String(36), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, nullable=True),  # what its slot holds
    Column("generation", Counter, nullable=True),
    Column("swap_id", String(36), nullable=True),  # the waiting swap it has answered
    Column("swap_ready", Boolean, nullable=True),  # pre-loaded, verified and warmed; false: see error
    Column("error", Text, nullable=True),
    Column("at", Moment, nullable=False),
    Column("bound_at", Moment, nullable=True),  # when its slot took this generation
    Column("health", Json, nullable=True),  # by generation, the newest two: answered, failed, seconds, slow
)
