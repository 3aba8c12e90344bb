"""The code blocks of the READMEs."""

import re

from helpers.paths import CONFIGS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (CONFIGS / "README.md").read_text(encoding="utf-8")
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", README, re.S) for language in ("bash", "yaml", "python")}
