"""Print the command of README.md that follows a marker.

`readme_command.py test` prints the block after `<!-- newcomer: test -->`. What continuous integration runs is thereby
what the README says.
"""

import re
import sys
from pathlib import Path


def readme_command(name: str) -> str:
    """Return the single command line in the fenced block right after the marker `<!-- newcomer: NAME -->`."""
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"<!-- newcomer: {re.escape(name)} -->\s*```bash\n(.*?)```", readme, re.DOTALL)
    if len(blocks) != 1:
        sys.exit(f"README.md must hold one bash block after <!-- newcomer: {name} -->, it holds {len(blocks)}")
    lines = blocks[0].strip().splitlines()
    if len(lines) != 1:
        sys.exit(f"the block after <!-- newcomer: {name} --> must be one command line, it has {len(lines)} lines")
    return lines[0]


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
