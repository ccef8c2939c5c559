"""The environment as one frozen `Settings`. A mistyped ``RETRUE_`` variable refuses to start.

Every field is the variable ``RETRUE_<FIELD>``; a ``.env`` file in the working folder counts too, and the environment
wins over it. `load` is the way in: it names the nearest match of a stranger and gives one line per invalid value.
"""

import difflib
import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.domain.errors import HomeUnusable, SettingInvalid
from service.domain.notice import endpoints_of, secrets_of
from service.domain.secret import MASK, is_secret, without_password

__all__ = ["CLIENT_ONLY", "PREFIX", "Settings", "explain", "load", "prepare_home"]

PREFIX = "RETRUE_"

CLIENT_ONLY = frozenset({"RETRUE_URL", "RETRUE_API_KEY", "RETRUE_ORIGINS"})
"""Read by the command line's verbs, or handed from parent to child; no settings of the service."""

ORIGINS = "RETRUE_ORIGINS"
"""Set by a parent for its children alone: where each setting came from, which the environment would hide from them."""

MIB = 1 << 20
LEAST_MEMORY = 512 * MIB


class Settings(BaseSettings):
    """All that an operator may set for the whole service; what belongs to one model stands in its spec."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    home: Path = Path("var")
    """Folder of everything that Retrue writes; nothing is written anywhere else."""
    models_folder: Path = Path("models")
    """Folder with one model file each; a spec's source is relative to the folder above it."""
    database_url: str = ""
    """SQLAlchemy URL of the state; a SQLite file in the home when empty."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0 takes a free one."""
    access: Literal["auto", "keys"] = "auto"
    """Who may come in. auto: whoever has a key, and anybody on a loopback address as long as no key was ever made;
    keys: whoever has a key."""
    rate_limit: Annotated[float, Field(ge=0)] = 100.0
    """Requests a second that one key may send to one worker, predictions and labels aside; 0: any number."""
    predict_rate_limit: Annotated[float, Field(ge=0)] = 0.0
    """Predictions and batches of labels a second that one key may send to one worker; 0: any number."""
    controller_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Port on which a controller that runs alone shows /metrics and /livez; 0: none."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """API worker processes."""
    log_format: Literal["console", "json"] = "console"
    """Lines for people, or one JSON object a line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 8 * MIB
    """Largest request body, also after decompression."""
    queue_rows: Annotated[int, Field(ge=1)] = 20_000
    """Rows that may wait in one worker; beyond it requests are refused with 503."""
    request_deadline_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds after which a waiting request is given up."""
    shutdown_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Seconds that children get to finish what they accepted."""
    spool_sync: bool = False
    """Whether each spool append waits for the disk: survives a power cut, costs latency."""
    spool_cap_bytes: Annotated[int, Field(ge=MIB)] = 2048 * MIB
    """Spool size above which answers that cannot be recorded are refused."""
    spool_segment_bytes: Annotated[int, Field(ge=4096)] = 4 * MIB
    """A spool segment is closed at this size."""
    spool_segment_s: Annotated[float, Field(gt=0)] = 0.15
    """A spool segment is closed at this age, so that the lake is never far behind."""
    commit_s: Annotated[float, Field(gt=0)] = 0.1
    """Pause of the committer between looks at the spool."""
    maintain_s: Annotated[float, Field(ge=1)] = 60.0
    """Seconds between rounds of lake maintenance."""
    tick_s: Annotated[float, Field(ge=0.05, le=60)] = 0.25
    """Seconds between looks at what is due."""
    trainers: Annotated[int, Field(ge=1, le=64)] = 1
    """Trainer processes at a time, over all models."""
    training_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads that numeric libraries may use in one trainer or check."""
    training_nice: Annotated[int, Field(ge=0, le=19)] = 19
    """Nice level of trainers and checks."""
    training_cpus: str = ""
    """Processors that trainers and checks may use, such as 1 or 2-3,5; all when empty."""
    training_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory that one trainer or check may take; beyond it that one process fails. 0: all that there is."""
    report_every_s: Annotated[float, Field(ge=0)] = 0.0
    """Scheduled checks of a model draw their HTML evidence at most once in so many seconds; 0: each does. A broken
    window's evidence is drawn in any case."""
    compile: Literal["auto", "off"] = "auto"
    """Whether versions are also compiled to ONNX, and served so once that is proved equal (needs retrue[onnx])."""
    queue_hours: Annotated[float, Field(gt=0)] = 24.0
    """A run that could not start for so long expires."""
    approval_days: Annotated[float, Field(gt=0)] = 7.0
    """A challenger that nobody approved or rejected for so long expires."""

    webhook_secret: Annotated[str, Field(repr=False)] = ""
    """What webhooks are signed with: whsec_ and base64; a second one, after a space, signs too while it goes out."""
    webhook_urls: Annotated[str, Field(repr=False)] = ""
    """Addresses, separated by spaces, that are told of runs and alerts as CloudEvents; nobody when empty."""
    webhook_source: Annotated[str, Field(min_length=1)] = "urn:retrue"
    """How this installation calls itself in the events' source: a URI."""
    webhook_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds that an endpoint gets to take one event."""
    webhook_tries: Annotated[int, Field(ge=1, le=100)] = 10
    """Tries after which an event is given up for one endpoint; a person can have it sent again."""
    webhook_first_pause_s: Annotated[float, Field(gt=0)] = 5.0
    """Pause before the second try; each further one is three times as long, up to six hours."""

    otlp_endpoint: str = ""
    """Address of an OpenTelemetry collector that takes OTLP over HTTP (needs retrue[otel]); no traces when empty."""
    trace_predictions: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of predictions that are traced although their sender traces none."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  pydantic-settings' own signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing by itself: `load` gathers the values, so that each one's origin is known."""
        return (init_settings,)

    @field_validator("home", "models_folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        return folder.expanduser().absolute()

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, word: Any) -> Any:
        return word.lower() if isinstance(word, str) else word

    @field_validator("training_cpus")
    @classmethod
    def _processors(cls, text: str) -> str:
        wanted, here = _cpus(text), _cpus_here()
        if wanted and not here:
            msg = "this system can't bind a process to processors; leave it empty"
            raise ValueError(msg)
        if strange := sorted(wanted - here):
            msg = f"there is no processor {strange[0]} to use here; there are {', '.join(map(str, sorted(here)))}"
            raise ValueError(msg)
        return text

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, text: str) -> str:
        secrets_of(text)
        return text

    @field_validator("webhook_urls")
    @classmethod
    def _endpoints(cls, text: str, info: ValidationInfo) -> str:
        if endpoints_of(text) and not info.data.get("webhook_secret"):
            msg = "set RETRUE_WEBHOOK_SECRET too: who is told must be able to see who tells"
            raise ValueError(msg)
        return text

    @field_validator("training_memory_bytes")
    @classmethod
    def _enough(cls, size: int) -> int:
        if 0 < size < LEAST_MEMORY:
            msg = f"a trainer's own libraries take more; give it at least {LEAST_MEMORY}, or 0 for no bound"
            raise ValueError(msg)
        return size

    @property
    def cpus(self) -> tuple[int, ...]:
        """Processors that trainers and checks may use; none: all."""
        return tuple(sorted(_cpus(self.training_cpus)))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        return _is_loopback(self.host)

    @property
    def database(self) -> str:
        """URL of the state database."""
        return self.database_url or f"sqlite:///{self.home / 'retrue.db'}"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifact store."""
        return self.home / "artifacts"

    @property
    def lake(self) -> Path:
        """Root of the Delta tables."""
        return self.home / "lake"

    @property
    def spool(self) -> Path:
        """Root of the workers' write-ahead segments."""
        return self.home / "spool"

    @property
    def reports(self) -> Path:
        """Folder of the HTML evidence."""
        return self.home / "reports"

    @property
    def run(self) -> Path:
        """Folder of the multi-process metrics; wiped at start."""
        return self.home / "run"

    def environ(self) -> dict[str, str]:
        """Return the variables that give a child process these very settings."""
        plain = self.model_dump(mode="json")
        origins = " ".join(f"{name}={origin.replace(' ', '-')}" for name, origin in sorted(self._origins.items()))
        return {PREFIX + name.upper(): _text(value) for name, value in plain.items()} | {ORIGINS: origins}


def load(*, environ: Mapping[str, str] | None = None, env_file: Path = Path(".env"), **overrides: Any) -> Settings:
    """Return the settings in force.

    Parameters
    ----------
    environ
        Variables; the process's own when left out.
    env_file
        Further variables, weaker than `environ`; may be missing.
    overrides
        Values of the command line, the strongest; None means not given.

    Raises
    ------
    SettingInvalid
        If a ``RETRUE_`` variable is unknown, or a value is out of its range: one line that says what to write.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, found in _gather(os.environ if environ is None else environ, env_file):
        _refuse_strangers(origin, found)
        ours = {_field(name): value for name, value in found.items() if name.upper() not in CLIENT_ONLY}
        values |= ours
        origins |= dict.fromkeys(ours, origin)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**values | given)
    except ValidationError as error:
        raise _one_line(error) from None
    told = (os.environ if environ is None else environ).get(ORIGINS)
    settings._origins.update(origins | dict.fromkeys(given, "command line") if told is None else _told(told))
    return settings


def explain(settings: Settings) -> list[dict[str, str]]:
    """Return every setting's ``name``, ``variable``, ``value`` (without the password of a URL) and ``origin``.

    The origin is one of ``command line``, ``environment``, ``.env`` and ``default``. A secret that is set shows as
    ``***``.
    """
    shown = {
        "database_url": without_password(settings.database),
        "webhook_urls": " ".join(endpoint.name for endpoint in endpoints_of(settings.webhook_urls)),
    }
    return [
        {
            "name": name,
            "variable": PREFIX + name.upper(),
            "value": shown.get(name, MASK if value and is_secret(name) else _text(value)),
            "origin": settings._origins.get(name, "default"),
        }
        for name, value in settings.model_dump(mode="json").items()
    ]


def prepare_home(settings: Settings) -> None:
    """Make the home's folders.

    Raises
    ------
    HomeUnusable
        If the home is a file, can't be made, or can't be read or written.
    """
    home = settings.home
    remedy = "choose another with RETRUE_HOME"
    try:
        for folder in (home, settings.artifacts, settings.lake, settings.spool, settings.reports, settings.run):
            folder.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        next(home.iterdir(), None)
    except (FileExistsError, NotADirectoryError) as error:
        msg = f"the home {home} is not a folder ({error.filename} is a file): {remedy}"
        raise HomeUnusable(msg, home=str(home)) from error
    except OSError as error:
        msg = f"the home {home} cannot be used ({error.strerror}): mend its permissions or {remedy}"
        raise HomeUnusable(msg, home=str(home)) from error


def _gather(environ: Mapping[str, str], env_file: Path) -> tuple[tuple[str, dict[str, str]], ...]:
    # Weakest first.
    in_file = {name: value for name, value in dotenv_values(env_file).items() if value} if env_file.is_file() else {}
    return ((".env", _ours(in_file)), ("environment", _ours(environ)))


def _ours(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.upper().startswith(PREFIX)}


def _told(text: str) -> dict[str, str]:
    """Return the origins that a parent process has told."""
    pairs = (part.partition("=") for part in text.split())
    return {name: origin.replace("-", " ") for name, _, origin in pairs}


def _field(variable: str) -> str:
    return variable[len(PREFIX) :].lower()


def _refuse_strangers(origin: str, found: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_ONLY
    for variable in sorted(found):
        if variable.upper() not in known:
            near = difflib.get_close_matches(variable.upper(), sorted(known), n=1, cutoff=0.0)
            where = "the environment" if origin == "environment" else origin
            msg = f"{variable} in {where} is no setting of Retrue; did you mean {near[0]}?"
            raise SettingInvalid(msg, variable=variable, nearest=near[0])


def _one_line(error: ValidationError) -> SettingInvalid:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        is_told = fault["type"] != "extra_forbidden" and not is_secret(name)
        given = f" (given: {fault['input']!r})" if is_told else ""
        lines.append(f"{PREFIX}{name.upper()}: {fault['msg'][0].lower()}{fault['msg'][1:]}{given}")
    return SettingInvalid("; ".join(lines), settings=[line.split(":")[0] for line in lines])


def _cpus(text: str) -> frozenset[int]:
    """Return the numbers that a list such as ``0-2,5`` names."""
    found: set[int] = set()
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or (dash and int(last) < int(first)):
            msg = "write processors as numbers and ranges of them, such as 1 or 2-3,5"
            raise ValueError(msg)
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _cpus_here() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _is_loopback(host: str) -> bool:
    if not host:
        return False  # an empty host listens everywhere
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)
    except (OSError, ValueError):
        return False  # not known to be; binding will say what is wrong with it


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
