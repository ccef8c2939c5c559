"""Compiled versions: the ONNX graph that a manifest names, opened instead of the artifact; scikit-learn stays away."""

from service.domain.errors import ArtifactInvalid
from service.learning.graph import Graph, open_graph
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow

__all__ = ["load_compiled"]


def load_compiled(store: ArtifactStore, row: VersionRow) -> Graph:
    """Return what answers for the version, by the digest in its manifest; its golden rows are still to be asked.

    It does not matter which scikit-learn is installed here, or whether any is.

    Raises
    ------
    ArtifactInvalid
        If the file is missing or altered, or ONNX Runtime is missing or does not take it: the original can still serve.
    """
    content = store.read(row.manifest["compiled"]["artifact"])
    try:
        graph = open_graph(content)
    except ImportError as error:
        raise _invalid(row, "retrue[onnx] is not installed here") from error
    except Exception as error:
        raise _invalid(row, f"ONNX Runtime does not take its graph ({type(error).__name__})") from error
    if graph.n_features_in_ != len(row.manifest["schema"]["features"]):
        raise _invalid(row, f"its graph takes {graph.n_features_in_} features")
    return graph


def _invalid(row: VersionRow, detail: str) -> ArtifactInvalid:
    msg = f"{row.model} version {row.version}: {detail}"
    return ArtifactInvalid(msg, model=row.model, version=row.version, reason="compiled")
