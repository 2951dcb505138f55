"""XML from strangers as a plain tree: no document types, no entities but the five of XML itself, bounded depth and size."""

from dataclasses import dataclass, field
from xml.parsers import expat

from splatsense.errors import FormatError, LimitError

DEEPEST = 64
MOST_ELEMENTS = 2_000_000


@dataclass
class Element:
    """An element without its text.

    Attributes:
        tag: its name.
        attributes: by name.
        children: elements in it, in order.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Element"] = field(default_factory=list)

    def all(self, *tags: str) -> list["Element"]:
        """The children with one of these names."""
        return [child for child in self.children if child.tag in tags]


def parse_xml(data: bytes | bytearray, where: str) -> Element:
    """The root element of a document; `where` names the file in errors.

    Raises:
        FormatError: it is not well-formed, or declares a document type, which could expand without end.
        LimitError: it is nested deeper or has more elements than any document of ours.
    """
    parser = expat.ParserCreate()
    document = Element("")
    stack = [document]
    count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(stack) > DEEPEST or count > MOST_ELEMENTS:
            raise LimitError(f"{where}: has over {MOST_ELEMENTS} elements or {DEEPEST} levels; it is damaged or hostile.")
        element = Element(tag, attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()

    def refuse(*_: object) -> None:
        raise FormatError(f"{where}: line {parser.CurrentLineNumber} declares a document type, which is not read; remove it.")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(bytes(data), True)
    except expat.ExpatError as error:
        raise FormatError(f"{where}: is no well-formed XML ({error}); save it again.") from error
    return document.children[0]
