"""Reading files that msgm or others wrote, checked: a damaged one is named in one sentence."""

import json
from pathlib import Path
from typing import Any

from msgm.errors import UserError


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
