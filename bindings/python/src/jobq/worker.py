"""``python -m jobq.worker MODULE…``: what jobqd's ``command =`` names.

The package has a decorator of the same name, ``jobq.worker``. Importing this module would put the module in its place, so
the module can be called as the decorator.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from .handlers import worker as _decorator


class _Module(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _decorator(*args, **kwargs)


if __name__ == "__main__":
    from ._runner import main

    sys.exit(main())
else:
    sys.modules[__name__].__class__ = _Module
