"""The form of the platform's failure messages: which pull source a part is about, which step failed, and the cause.

The importer writes `REFERENCE: CAUSE`, or one of its own sentences with the reference in quotes; several pull sources make an
aggregate `[PART, PART]`. A cause may be Go's `Get "URL": CAUSE`. What somebody else answered, a proxy's page for instance, is only
ever in quotes, and nothing here looks into quotes.
"""

import re
from dataclasses import dataclass

from mirrorstream.rules.references import MAXIMUM_LENGTH

WRAPPER = "Internal error occurred: "
DEEPEST = 16
"""Aggregates in aggregates that are taken apart; the importer nests them once. What is deeper stays one part."""
DEEPEST_REQUEST = 4
"""Requests in requests; the distribution client nests one, to the token service."""

# The host ends at the first slash: were others allowed in it, the match would start again at each slash of a text.
_LEADING_REFERENCE = re.compile(r'(?!net/http: )((?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9])[^\s"\[\]/]*/[^\s"]+): ')
_SENTENCE = re.compile(
    r"(?:dockerimages?(?:\.image\.openshift\.io)?|"
    r"(?:you may not have access to the container image|incorrect username or password for image|unable to parse reference)) "
    r'"([^"]*)"|unable to (?:get all pull sources|create manifests service) for ([^\s"]+): |'
    r'[\w.]* ?"[^"]*" is invalid: [\w.]+: Invalid value: "([^"]*)"'
)
_REQUEST = re.compile(r'(?:Get|Head|Post) "((?:[^"\\]|\\.)*+)": ', re.DOTALL)
_NOT_FOUND = re.compile(r'dockerimages?(?:\.image\.openshift\.io)? "[^"]*" not found$')
# The page that follows a status may be as long as it likes, and tells nobody anything.
_NO_REGISTRY = re.compile(r'error parsing HTTP (\d+) response body: |endpoint "[^"]*" does not support v2 API \(got (.*)\)$')
# Go quotes a character as '"' where its JSON decoder did not expect a quotation mark.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_QUOTATION_MARK = "'\"'"
_PART_START = re.compile(
    r", (?=(?:\[|[A-Za-z0-9][\w.-]*(?::\d+)?/\S+: |(?:you may not have access|incorrect username)|"
    r"dockerimage\.image\.openshift\.io \"|the repository |unable to |registry |forbidden: ))"
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a message says.

    `subject` is the pull source that it is about, as the importer wrote it; empty if it names none. `requests` are the URLs of the
    requests that failed, the outermost first.
    """

    subject: str
    requests: tuple[str, ...]
    cause: str


def read_part(text: str) -> Part:
    """Take one part of a message apart. The whole text is the cause where the importer's own sentence names the reference."""
    text = text.removeprefix(WRAPPER)
    subject, cause = "", text
    if leading := _LEADING_REFERENCE.match(text):
        subject, cause = leading[1], text[leading.end() :]
    elif sentence := _SENTENCE.match(text):
        subject = next(filter(None, sentence.groups()), "")
    requests: list[str] = []
    while len(requests) < DEEPEST_REQUEST and (request := _REQUEST.match(cause)):
        requests.append(request[1])
        cause = cause[request.end() :]
    return Part(subject, tuple(requests), cause)


def split_aggregate(message: str, depth: int = DEEPEST) -> list[str]:
    """The parts of an error message: one for each pull source that the platform tried.

    Commas, brackets and colons occur inside parts too (IPv6 addresses, lists of allowed registries, quoted pages), so an aggregate
    is cut only where the next part visibly begins: outside quotes, with a reference, or with one of the few sentences that the
    importer starts a part with.
    """
    text = message.removeprefix(WRAPPER)
    if not depth or not (text.startswith("[") and text.endswith("]")) or _LEADING_REFERENCE.match(text):
        return [text]
    inside = text[1:-1]
    quoted = _quoted_spans(inside)
    pieces, begin, span = [], 0, 0
    for found in _PART_START.finditer(inside):
        while span < len(quoted) and quoted[span][1] <= found.start():
            span += 1
        if span < len(quoted) and quoted[span][0] < found.start():
            continue
        pieces.append(inside[begin : found.start()])
        begin = found.end()
    pieces.append(inside[begin:])
    return [part for piece in pieces for part in split_aggregate(piece, depth - 1)]


def without_quoted(text: str) -> str:
    """`text` without what is in quotes: the importer's and Go's own words."""
    kept, begin = [], 0
    for start, end in _quoted_spans(text):
        kept.append(text[begin:start])
        begin = end
    return '""'.join([*kept, text[begin:]])


def _quoted_spans(text: str) -> list[tuple[int, int]]:
    """Where texts in quotes begin and end. A mark that none ends is no quotation."""
    spans, at = [], 0
    while (at := text.find('"', at)) >= 0:
        if text[at - 1 : at + 2] == _QUOTATION_MARK:
            at += 1
            continue
        if not (quoted := _QUOTED.match(text, at)):
            break
        spans.append(quoted.span())
        at = quoted.end()
    return spans


def mentions(part: str, reference: str) -> bool:
    """Whether `part` of a message is about the pull source `reference` (as written, or with its tag or digest defaulted).

    The importer puts the reference in front (`REF: cause`) or in quotes in a sentence of its own. Neither the host alone, as in a
    dialled address, nor a reference in what somebody answered counts.
    """
    if len(reference) > MAXIMUM_LENGTH:
        return False  # no pull spec
    return bool(reference) and read_part(part).subject == reference


def brief(message: str) -> str:
    """A failure's message for people: without the importer's wrapping, the reference in front and the URL that was asked for."""
    if len(split_aggregate(message)) > 1:
        return message.removeprefix(WRAPPER)
    cause = read_part(message).cause
    if _NOT_FOUND.match(cause):
        return "not found"
    if foreign := _NO_REGISTRY.match(cause):
        return f"no registry answered: HTTP {foreign[1] or foreign[2]}"
    return cause or message
