"""How every description is checked: a typo is an error, nothing changes once it is made."""

from pydantic import ConfigDict

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
