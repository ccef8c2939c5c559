"""The kinds of panels that the dashboards are put together from: each with its unit, its thresholds and its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statushistory, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from typing_extensions import override

__all__ = ["BAD", "ODD", "PLAIN", "Ask", "Steps", "board", "cells", "lines", "mark", "name", "number", "rows"]

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first has none."""
PLAIN: Steps = ((None, BLUE),)
BAD: Steps = ((None, GREEN), (1, RED))
"""Any is bad."""
ODD: Steps = ((None, GREEN), (1, YELLOW))
"""Any is worth a look."""


@dataclass(frozen=True)
class Ask:
    """One query and the name of what it returns."""

    expr: str
    legend: str = ""


P = TypeVar("P", bound=timeseries.Panel | stat.Panel | statushistory.Panel | table.Panel)


def lines(
    title: str, *asked: Ask, words: str, unit: str, steps: Steps = PLAIN, width: int = 8, top: float | None = None
) -> timeseries.Panel:
    """Return curves over time; with more than one step the thresholds are drawn too."""
    panel = _common(timeseries.Panel(), title, asked, words=words, unit=unit, steps=steps, width=width, height=8)
    panel = panel.min(0).line_width(2).fill_opacity(8).show_points(common.VisibilityMode.NEVER)
    panel = panel.color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
    panel = panel.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(True))
    if len(steps) > 1:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    return panel if top is None else panel.max(top)


def number(
    title: str,
    *asked: Ask,
    words: str,
    unit: str,
    steps: Steps = PLAIN,
    width: int = 4,
    texts: dict[str, str] | None = None,
) -> stat.Panel:
    """Return the newest value in large figures, one for each series."""
    panel = _common(stat.Panel(), title, asked, words=words, unit=unit, steps=steps, width=width, height=4)
    panel = panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.NONE)
    return panel if texts is None else panel.mappings([_texts(texts)])


def name(title: str, asked: Ask, *, words: str) -> stat.Panel:
    """Return the name of a series in large letters."""
    return number(title, asked, words=words, unit="short").text_mode(common.BigValueTextMode.NAME)


def cells(
    title: str, *asked: Ask, words: str, unit: str, steps: Steps, width: int = 24, height: int = 9
) -> statushistory.Panel:
    """Return a heat map: a row for each series, a cell for each stretch of time, coloured by the thresholds."""
    panel = _common(
        statushistory.Panel(), title, asked, words=words, unit=unit, steps=steps, width=width, height=height
    )
    panel = panel.max_data_points(120).row_height(0.9).show_value(common.VisibilityMode.NEVER).fill_opacity(85)
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    return panel.legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(True))


def rows(
    title: str, *asked: Ask, words: str, names: dict[str, str], steps: Steps = PLAIN, width: int = 24
) -> table.Panel:
    """Return a table: one row for each model or clause, one column for each query, under its legend's name."""
    panel = _common(table.Panel(), title, asked, words=words, unit="short", steps=steps, width=width, height=9)
    for place, one in enumerate(asked):
        query = _query(one, place).instant().format(PromQueryFormat.TABLE)
        panel = panel.targets([query]) if place == 0 else panel.with_target(query)
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    columns = {"Time": True}
    renamed = names | {f"Value #{chr(65 + place)}": one.legend for place, one in enumerate(asked)}
    if len(asked) == 1:
        renamed["Value"] = asked[0].legend
    organised = {"excludeByName": columns, "renameByName": renamed}
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organised))


class _Mark(models.AnnotationQuery):
    """An annotation whose query's value is the moment, in milliseconds; the library does not know of it."""

    at_value = False

    @override
    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "useValueForTime": self.at_value,
            "titleFormat": self.name,
            "textFormat": "{{model}}",
        }


class _MarkBuilder(builders.AnnotationQuery):
    def __init__(self, *, at_value: bool) -> None:
        self._internal = _Mark()
        self._internal.at_value = at_value


def mark(name: str, expr: str, *, color: str, at_value: bool) -> builders.AnnotationQuery:
    """Return marks on the time line: at the moment that is the value, or for as long as the value is above 0."""
    return _MarkBuilder(at_value=at_value).name(name).expr(expr).icon_color(color).datasource(SOURCE).enable(True)


def board(title: str, *, uid: str, words: str, many: bool) -> builders.Dashboard:
    """Return an empty dashboard that chooses its data source and its model (or models), and links to the others."""
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    model = builders.QueryVariable("model").label("Model").query("label_values(retrue_model_broken, model)")
    model = model.datasource(SOURCE).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    model = model.sort(models.VariableSort.ALPHABETICAL_ASC)
    if many:
        model = model.multi(True).include_all(True).all_value(".+")
        model = model.current(models.VariableOption(selected=True, text="All", value="$__all"))
    others = builders.DashboardLink("Retrue").type(models.DashboardLinkType.DASHBOARDS).tags(["retrue"])
    made = builders.Dashboard(title).uid(uid).description(words).tags(["retrue"]).editable().refresh("30s")
    made = made.time("now-24h", "now").timezone("utc").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made = made.link(others.include_vars(True).keep_time(True).as_dropdown(False))
    return made.with_variable(source).with_variable(model)


def _common(
    panel: P, title: str, asked: Sequence[Ask], *, words: str, unit: str, steps: Steps, width: int, height: int
) -> P:
    made: Any = panel.title(title).description(words).datasource(SOURCE).unit(unit).span(width).height(height)
    thresholds = builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    made = made.thresholds(thresholds.steps([models.Threshold(value=value, color=color) for value, color in steps]))
    for place, one in enumerate(asked):
        made = made.with_target(_query(one, place))
    done: P = made
    return done


def _query(one: Ask, place: int) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(one.expr).legend_format(one.legend or "__auto").ref_id(chr(65 + place))
    return query.datasource(SOURCE)


def _texts(texts: dict[str, str]) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, index=place)
            for place, (value, text) in enumerate(texts.items())
        }
    )
