"""What nobody may read: by which names it is known, and how an address is shown without it."""

from urllib.parse import urlsplit, urlunsplit

__all__ = ["MASK", "is_secret", "without_password"]

MASK = "***"
PRIVATE = frozenset({"database_url", "webhook_urls"})
"""Settings that may hold a secret within an address."""

SECRETS = frozenset({"secret", "secrets", "key", "token", "password", "sslpassword"})
"""Last words of names that hold what nobody may read."""


def is_secret(name: str) -> bool:
    """Return whether a setting or parameter of that name holds what nobody may read.

    Examples
    --------
    >>> [name for name in ("webhook_secret", "api_key", "port", "webhook_urls") if is_secret(name)]
    ['webhook_secret', 'api_key', 'webhook_urls']
    """
    return name.lower() in PRIVATE or name.lower().rpartition("_")[2] in SECRETS


def without_password(url: str) -> str:
    """Return `url` with its password hidden, wherever it stands.

    Examples
    --------
    >>> without_password("postgresql://retrue:secret@db/retrue")
    'postgresql://retrue:***@db/retrue'
    """
    parts = hidden = urlsplit(url)
    if parts.password is not None:
        hidden = hidden._replace(netloc=parts.netloc.replace(f":{parts.password}@", f":{MASK}@"))
    pairs = [(pair.partition("=")[0], pair) for pair in parts.query.split("&")]
    query = "&".join(f"{name}={MASK}" if is_secret(name) and "=" in pair else pair for name, pair in pairs)
    hidden = hidden._replace(query=query)
    # Put together again, sqlite:////path would lose two of its strokes.
    return url if hidden == parts else urlunsplit(hidden)
