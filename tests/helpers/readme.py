"""The code blocks of the READMEs."""

import re

from helpers.paths import CONFIGS, ROOT, TESTS

README, REFERENCE, DEVELOPING = (
    folder.joinpath("README.md").read_text(encoding="utf-8") for folder in (ROOT, CONFIGS, TESTS)
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


YAMLS = [block for text in (README, REFERENCE) for block in blocks(text, "yaml")]
