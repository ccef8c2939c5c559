"""What the fork server imports once, so that no check and no trainer has to.

Imports only: a thread pool that were running here would be broken in every fork.
"""

from contextlib import suppress

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite  # noqa: F401

import service.control.checker
import service.control.reader
import service.control.trainer

with suppress(ImportError):  # the extra onnx: its converters take longer to import than most versions to compile
    import service.learning.converters  # noqa: F401
