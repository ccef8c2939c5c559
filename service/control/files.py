"""Model files: read one by one, so that a broken one never takes down the others, and written to the models table."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Connection

from service.domain.errors import SpecInvalid
from service.domain.spec import NAME, ModelSpec, Schema
from service.storage import models

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FoundModel", "fingerprint", "load_spec", "read_files", "read_source", "record"]


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """What one model file holds."""

    name: str
    """The spec's name; the file's while it has none."""
    file: str
    """Path relative to the project folder."""
    spec: ModelSpec | None = None
    schema: Schema | None = None
    error: str | None = None
    """File, field and remedy in one sentence."""
    code: str = ""
    """The sha256 of the file."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``spec`` is what the models table keeps."""
        return {"name": self.name, "file": self.file, "error": self.error, "spec": self.spec_json()}

    def spec_json(self) -> dict[str, Any] | None:
        """Return all of the spec but its code."""
        if self.spec is None or self.schema is None:
            return None
        plain = {name: getattr(self.spec, name) for name in ("task", "target", "timestamp", "metric", "source")}
        return plain | {
            "description": self.spec.description,
            "input": self.spec.input,
            "schema": self.schema.to_json(),
            "policies": self.spec.policies(),
            "code": self.code,
        }


def model_files(folder: Path) -> list[Path]:
    """Return the model files of `folder`, by name; a leading underscore hides one."""
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a model file does: cheap enough for every look."""
    found = []
    for path in model_files(folder):
        try:
            status = path.stat()
        except FileNotFoundError:  # an editor replaces files
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(found)


def read_files(folder: Path) -> list[FoundModel]:
    """Return what each model file of `folder` holds, checked against its source."""
    project = folder.absolute().parent
    found: list[FoundModel] = []
    for path in model_files(folder):
        model = _read_file(path, project)
        taken = next((other.file for other in found if other.name == model.name and not other.error), None)
        if taken is not None and model.error is None:
            error = f"{model.file}: field name: {model.name!r} is the name in {taken} too; give one of them another"
            model = FoundModel(name=model.name, file=model.file, error=error)
        found.append(model)
    return found


def load_spec(path: Path, project: Path) -> ModelSpec:
    """Run the model file `path` and return its ``spec``.

    Raises
    ------
    SpecInvalid
        If it does not run, or has none; names the file and what to mend.
    """
    file = _relative(path, project)
    try:
        module_spec = importlib.util.spec_from_file_location(f"retrue_model_{path.stem}", path)
        if module_spec is None or module_spec.loader is None:
            msg = f"{file} is no Python file"
            raise SpecInvalid(msg, file=file)
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_spec.name] = module  # dataclasses and joblib look their module up by name
        module_spec.loader.exec_module(module)
    except ValidationError as error:
        raise _invalid_field(file, error) from error
    except SpecInvalid:
        raise
    except (Exception, SystemExit) as error:  # a model file is somebody's code: it may raise anything
        where = next(
            (
                f" at line {at.lineno}"
                for at in traceback.extract_tb(error.__traceback__)[::-1]
                if at.filename == str(path)
            ),
            "",
        )
        if isinstance(error, SyntaxError):
            where = f" at line {error.lineno}"
        msg = f"{file} does not run{where} ({type(error).__name__}: {_words(error)}): mend that line"
        raise SpecInvalid(msg, file=file) from error
    spec = getattr(module, "spec", None)
    if not isinstance(spec, ModelSpec):
        msg = f"{file} has no ModelSpec named `spec`: write spec = ModelSpec(name=…, …)"
        raise SpecInvalid(msg, file=file, field="spec")
    return spec


def read_source(spec: ModelSpec, project: Path) -> "pd.DataFrame":
    """Return the rows of the spec's source file.

    Raises
    ------
    SpecInvalid
        If the file is missing, unreadable or of an unknown kind.
    """
    import pandas as pd

    path = project / spec.source
    if not path.is_file():
        msg = f"the file {spec.source} does not exist below {project}: put it there, or correct the path"
        raise SpecInvalid(msg, field="source", remedy="put the file there, or correct the path")
    kind = path.suffix.lower()
    if kind not in {".parquet", ".csv"}:
        msg = f"{spec.source} is neither .parquet nor .csv: convert it to one of them"
        raise SpecInvalid(msg, field="source", remedy="convert it to .parquet or .csv")
    try:
        return pd.read_parquet(path) if kind == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        msg = f"{spec.source} cannot be read as {kind[1:]} ({_words(error)}): write the file anew"
        raise SpecInvalid(msg, field="source", remedy="write the file anew") from error


def record(conn: Connection, found: Iterable[dict[str, Any]], *, at: datetime) -> list[models.ModelRow]:
    """Write what `read_files` found (as JSON) to the models table; return the rows."""
    entries = list(found)
    good = {entry["name"] for entry in entries if entry["error"] is None}
    rows = []
    for entry in entries:
        if entry["error"] is None:
            rows.append(models.register(conn, entry["name"], spec_json=entry["spec"], file=entry["file"], at=at))
        elif entry["name"] not in good:  # of two files with one name, the one that works stands
            old = models.find(conn, entry["name"])
            if old is None or old.error != entry["error"]:
                rows.append(models.mark_broken(conn, entry["name"], entry["error"], entry["file"], at=at))
    return rows


def _read_file(path: Path, project: Path) -> FoundModel:
    file = _relative(path, project)
    name = path.stem if NAME.fullmatch(path.stem) else "unnamed"
    try:
        spec = load_spec(path, project)
        name = spec.name
        code = hashlib.sha256(path.read_bytes()).hexdigest()
        return FoundModel(name=name, file=file, spec=spec, schema=_schema(spec, project), code=code)
    except SpecInvalid as error:
        field = error.facts.get("field")
        text = error.detail if "file" in error.facts else f"{file}: {_named(field, error.detail)}"
        return FoundModel(name=name, file=file, error=text)
    except Exception as error:  # noqa: BLE001  build() is somebody's code, the source somebody's data
        text = f"{file}: {type(error).__name__}: {_words(error)}: mend the file or its source"
        return FoundModel(name=name, file=file, error=text)


def _schema(spec: ModelSpec, project: Path) -> Schema:
    from service.learning.schema import check_estimator, infer

    check_estimator(spec)
    return infer(spec, read_source(spec, project))


def _named(field: Any, detail: str) -> str:
    if not field:
        return detail
    return f"field {detail}" if detail.startswith(f"{field}:") else f"field {field}: {detail}"


def _invalid_field(file: str, error: ValidationError) -> SpecInvalid:
    first = error.errors(include_url=False)[0]
    # The last part of the place that is a name: pydantic also lists positions and union members.
    names = [str(part) for part in first["loc"] if isinstance(part, str)]
    field = ".".join(names) or error.title
    text = first["msg"].removeprefix("Value error, ")
    remedy = "leave it out" if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"} else "correct it"
    if first["type"] in {"missing_argument", "missing", "missing_keyword_only_argument"}:
        remedy = "add it"
    msg = f"{file}: field {field} of {error.title}: {text}; {remedy}"
    return SpecInvalid(msg, file=file, field=field, remedy=remedy)


def _relative(path: Path, project: Path) -> str:
    absolute = path.absolute()
    return str(absolute.relative_to(project)) if absolute.is_relative_to(project) else str(absolute)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or "no further words"
