"""Run a tool where the checkout goes by its package name.

The repository root is the package ``shardwise``, but a checkout may lie in a folder of any name; mypy and import-linter
want to find the package by its own. They are run beside a link of that name.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def main() -> int:
    """Run ``argv[1:]`` in a folder that holds the checkout as ``shardwise``."""
    root = Path(__file__).resolve().parent.parent
    tool, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shardwise").symlink_to(root)
        command = [str(Path(sysconfig.get_path("scripts")) / tool), *arguments]
        return subprocess.run(command, cwd=folder, env=_environment(folder), check=False).returncode


def _environment(folder: str) -> dict[str, str]:
    import os

    return dict(os.environ) | {"PYTHONPATH": folder}


if __name__ == "__main__":
    sys.exit(main())
