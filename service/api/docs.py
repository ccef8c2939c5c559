"""The page at ``/docs``: Swagger UI from this package, so that it works with no internet."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

__all__ = ["install"]

ASSETS = Path(__file__).parent / "assets" / "swagger-ui"
AT = "/docs/assets"


def install(app: FastAPI) -> None:
    """Add the page and its files to `app`."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "/openapi.json",
            title="Retrue: API",
            swagger_js_url=f"{AT}/swagger-ui-bundle.js",
            swagger_css_url=f"{AT}/swagger-ui.css",
            swagger_favicon_url=f"{AT}/favicon-32x32.png",
        )

    app.mount(AT, StaticFiles(directory=ASSETS), name="docs-assets")
