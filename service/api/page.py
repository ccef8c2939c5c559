"""Pages drawn from stored values alone: no script, nothing from elsewhere, light and dark, narrow and wide."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Html", "details", "document", "figure", "joined", "link", "number", "pairs", "pill", "section", "table"]


class Html(str):
    """Text that is HTML already; any other text is escaped wherever it meets a page."""

    __slots__ = ()


STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5a6675;--line:#d9dfe7;--paper:#fff;--page:#f4f6f9;--good:#16713a;
--bad:#b3261e;--wait:#8a5a00;--a:#0b5cad;--b:#8a8f98;--tint:#eef2f7}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa7b6;--line:#333d49;--paper:#171d25;--page:#0f141a;
--good:#5fd38d;--bad:#ff8a80;--wait:#ffc04d;--a:#6cb2ff;--b:#8b95a3;--tint:#1f2731}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
h1{font-size:24px;line-height:1.25;margin:8px 0;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 12px}
h3{font-size:14px;margin:16px 0 8px;color:var(--soft);font-weight:600}
p{margin:0 0 12px;overflow-wrap:anywhere}
a{color:var(--a)}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:16px;margin:16px 0}
.soft{color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:16px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr:last-child td{border-bottom:0}
tr.best td{font-weight:600}
td.words{min-width:220px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(90px,170px) 1fr;gap:4px 12px;margin:0;font-size:14px}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
.pill{display:inline-block;padding:1px 10px;border-radius:999px;border:1px solid currentColor;font-size:13px;
font-weight:600;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.wait{color:var(--wait)}
.big{font-size:30px;font-weight:650;line-height:1.1;font-variant-numeric:tabular-nums}
figure{margin:0}
figcaption{font-size:13px;color:var(--soft);margin-top:6px}
svg{display:block;width:100%;height:auto;max-width:520px}
svg text{fill:var(--soft);font-size:12px}
svg .axis{stroke:var(--line)}svg .ideal{stroke:var(--soft);stroke-dasharray:4 4}
svg .a{stroke:var(--a);fill:var(--a)}svg .b{stroke:var(--b);fill:var(--b)}svg .bad{stroke:var(--bad);fill:var(--bad)}
svg .curve{fill:none;stroke-width:2}svg .dim{opacity:.35}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px;background:var(--tint);padding:12px;border-radius:8px;
margin:8px 0 0}
summary{cursor:pointer;color:var(--a)}
@media (max-width:480px){main{padding:8px}section{padding:12px}dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 8px}
.many thead{display:none}.many tr{display:block;padding:8px 0;border-bottom:1px solid var(--line)}
.many td{display:flex;justify-content:space-between;gap:12px;border:0;padding:2px 0;min-width:0;white-space:normal}
.many td.words{display:block}.many td:empty{display:none}
.many td[data-name]:before{content:attr(data-name);color:var(--soft);flex:none;font-weight:400}
.many td.words:before{display:block}}
"""

_SIGNS = {"good": "✓", "bad": "✗", "wait": "…"}


def document(title: str, *parts: Html) -> str:
    """Return a whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def section(title: str, *parts: Any) -> Html:
    """Return a section with its heading; parts that are no HTML become paragraphs."""
    inside = "".join(part if isinstance(part, Html) else f"<p>{_text(part)}</p>" for part in parts)
    return Html(f"<section><h2>{_text(title)}</h2>{inside}</section>")


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, best: int | None = None) -> Html:
    """Return a table; a head that ends in ``#`` is a column of numbers, one that ends in ``~`` one of sentences."""
    kinds = ["n" if head.endswith("#") else "words" if head.endswith("~") else "" for head in heads]
    names = [_text(head.rstrip("#~")) for head in heads]
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in zip(names, kinds, strict=True))
    body = "".join(
        f'<tr class="{"best" if place == best else ""}">'
        + "".join(_cell(cell, kind, name) for cell, kind, name in zip(row, kinds, names, strict=True))
        + "</tr>"
        for place, row in enumerate(rows)
    )
    # On a narrow screen a row of many columns becomes lines, each with its column's name.
    many = "many" if len(heads) > 3 else ""
    table = f'<table class="{many}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return Html(f'<div class="wide">{table}</div>')


def _cell(value: Any, kind: str, name: str) -> str:
    named = f' data-name="{name}"' if name else ""
    return f'<td class="{kind}"{named}>{_text(value)}</td>'


def pairs(values: Iterable[tuple[str, Any]]) -> Html:
    """Return names with their values; those whose value is None are left out."""
    lines = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in values if value is not None)
    return Html(f"<dl>{lines}</dl>")


def pill(words: str, kind: str) -> Html:
    """Return a word that stands out; `kind` is good, bad or wait, and a sign says it without colour."""
    sign = _SIGNS.get(kind)
    return Html(f'<span class="pill {_text(kind)}">{sign + " " if sign else ""}{_text(words)}</span>')


def figure(drawing: Html, caption: str) -> Html:
    """Return a drawing with what it shows."""
    return Html(f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>")


def details(title: str, text: str) -> Html:
    """Return a long text that opens on a click."""
    return Html(f"<details><summary>{_text(title)}</summary><pre>{_text(text)}</pre></details>")


def link(address: str, words: str) -> Html:
    """Return a link to another page of this service."""
    return Html(f'<a href="{_text(address)}">{_text(words)}</a>')


def joined(*parts: Any, between: str = " ") -> Html:
    """Return the parts in one line, each escaped unless it is HTML."""
    return Html(between.join(_text(part) for part in parts))


def number(value: Any, digits: int = 4) -> str:
    """Return a number in so many digits, with separators where it is large; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _text(value: Any) -> str:
    return value if isinstance(value, Html) else html.escape("–" if value is None else str(value))
