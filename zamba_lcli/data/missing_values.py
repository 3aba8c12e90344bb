"""How programs and people write that there is no value: R, pandas, NumPy, SQL, JavaScript, and Excel in any language."""

import re
import unicodedata
from functools import lru_cache

EXACT = frozenset(["NA", "#NA", "NaT", "NaN", "nan", "NAN", "None", "NONE", "NIL", "nil", "\\N"])  # others may be names
IN_ANY_CASE = frozenset(
    [
        *("n/a", "n.a", "n/d", "n.d", "n/b", "s/d", "#n/a", "#n/a n/a", "null", "undefined"),
        *("pd.na", "pd.nat", "np.nan", "numpy.nan", "math.nan", "float('nan')", "-nan", "+nan"),
        *("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "1.#inf", "-1.#inf"),
        *("1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "#saknas!", "#n/d!", "#puuttuu!", "#puudub!"),
    ]
)
IN_BRACKETS = frozenset(["na", "nan", "nat", "none", "nil", "missing"])  # in any case, such as <na>
AROUND = "'\"()[]<>{}_=.: "
OF_R = re.compile(r"NA_\w+_")  # NA_character_
OF_EXCEL = re.compile(r"#[^\W\d_][^\W\d]*(?:[/ ][^\W\d]+)*")  # #N/A in its languages, in capitals
MARKS = re.compile(r"[-.?\xbf_*~\u2026\u2010-\u2015\u2205\u2212/\\]+")
MAY_BE_NAMES = frozenset(
    [
        *(
            "na",
            "k.a",
            "k. a",
            "n.v.t",
            "missing",
            "no data",
            "nodata",
            "void",
            "not available",
            "-99",
            "-999",
            "-9999",
        ),
        *("tbd", "todo", "to do", "no label", "unlabeled", "unlabelled", "unannotated"),
    ]
)
UNKNOWN_SITES = frozenset(
    ["nan", "none", "unknown", "unknown site", "not known", "unbekannt", "inconnu", "desconocido"]
)
FORMULA_ERROR = re.compile(  # as Excel, LibreOffice and Google Sheets show it
    r"#(?:[\xa1\xbf]?[^\W\d_][\w/]*[!?]|#+)|#DIV/0|(?:Err|Fehler|Erreur|Error):\s?\d{3}|Loading\.\.\."
)
LONGEST = 24  # characters


@lru_cache(maxsize=1024)  # labels and sites come again and again
def is_missing(text: str) -> bool:
    """Returns whether a value means a missing one, in any column; ``""`` is not such a value."""
    if len(text) > LONGEST or not text:
        return False
    text = _plain(text)
    core = text.strip(AROUND)
    if text in EXACT or core in EXACT or {text.casefold(), core.casefold()} & IN_ANY_CASE:
        return True
    if OF_R.fullmatch(text) or MARKS.fullmatch(text) or (core != text and core.casefold() in IN_BRACKETS):
        return True
    return text[0] == "#" and len(text) > 2 and text == text.upper() and OF_EXCEL.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def may_be_missing(text: str) -> bool:
    """Returns whether a value that may be a name mostly means a missing one, such as ``na``."""
    return len(text) <= LONGEST and _plain(text).strip(AROUND).casefold() in MAY_BE_NAMES


def _plain(text: str) -> str:
    """Returns a text with the characters that look like those of ASCII replaced by them."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).replace("\u2215", "/").replace("\u2044", "/")
