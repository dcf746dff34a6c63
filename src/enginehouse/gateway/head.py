"""The head of an HTTP/1.1 request: parsed by hand, tolerant where real clients need it, strict everywhere else.

Comes in: the bytes up to the empty line. Goes out: a `RequestHead`, or an error of `gateway.errors`. Pure functions.

Tolerated, because clients that can't be changed send it: lines that end in a bare LF, `Transfer-Encoding: identity`
(TensorFlow's empty POSTs), `Transfer-Encoding: chunked` together with `Content-Length` (TensorFlow's uploads, whose
body is chunked). Nothing of this can smuggle a request (RFC 9112 §11.2) since no part of the head is passed on as it
was: the application gets decoded values, and another origin gets a head that is written anew with one framing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from enginehouse.gateway.errors import BadRequest, HeadTooLarge, VersionNotSupported
from enginehouse.gateway.limits import Limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"+):([\t\x20-\x7e\x80-\xff]*)")
_DIGITS = re.compile(rb"[0-9]{1,19}")
_HEAD_END = re.compile(rb"\n\r?\n")

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """One request without its body.

    Attributes:
        target: as sent: `/path?query`, `http://host/path?query` or, with CONNECT, `host:port`.
        version: "1.1" or "1.0".
        headers: names in lower case, values without white space around them, in the order of the request.
        content_length: bytes of the body; None when it is chunked.
    """

    method: str
    target: str
    version: str
    headers: list[Header]
    content_length: int | None

    def values(self, name: bytes) -> Iterator[bytes]:
        """All values of the header `name`, which is given in lower case."""
        return (value for key, value in self.headers if key == name)

    def tokens(self, name: bytes) -> list[bytes]:
        """The comma-separated words of all headers `name`, in lower case."""
        return [word.strip().lower() for value in self.values(name) for word in value.split(b",") if word.strip()]

    @property
    def expects_continue(self) -> bool:
        return self.version == "1.1" and b"100-continue" in self.tokens(b"expect")

    @property
    def keep_alive(self) -> bool:
        """Whether the client lets the connection live on; HTTP/1.0's are always closed."""
        return self.version == "1.1" and b"close" not in self.tokens(b"connection") + self.tokens(b"proxy-connection")


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """The index behind the empty line that ends a head, or -1.

    Args:
        start: nothing before it needs to be searched again but for the last three bytes.
    """
    found = _HEAD_END.search(buffer, max(start - 3, 0))
    return found.end() if found else -1


def parse_head(block: bytes, limits: Limits) -> RequestHead:
    """Parse a head with its empty line.

    Raises:
        BadRequest: it is not HTTP, or its framing is ambiguous.
        HeadTooLarge: it has too many headers.
        VersionNotSupported: neither HTTP/1.1 nor HTTP/1.0.
    """
    first, _, rest = block.partition(b"\n")
    line = _REQUEST_LINE.fullmatch(first.removesuffix(b"\r"))
    if line is None:
        raise BadRequest("The request does not begin with an HTTP/1.1 request line.")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in b"01":
        raise VersionNotSupported("This server speaks HTTP/1.1.")
    version = f"1.{minor.decode()}"
    headers = parse_header_lines(rest, limits)
    return RequestHead(method.decode(), target.decode(), version, headers, _content_length(headers, version))


def parse_header_lines(block: bytes, limits: Limits) -> list[Header]:
    """Parse header lines, or trailers, that end with an empty line.

    Raises:
        BadRequest: a line is no header: a name that is no token, a control character, or a folded line.
        HeadTooLarge: there are more than `limits.headers`.
    """
    lines = block.split(b"\n")
    del lines[-2:]  # the empty line, and what split() puts behind it
    if len(lines) > limits.headers:
        raise HeadTooLarge(f"The request has more than {limits.headers} headers.")
    headers = []
    for line in lines:
        match = _HEADER_LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None:
            if line[:1] in (b" ", b"\t"):
                raise BadRequest("A header continues on the next line, which HTTP/1.1 has given up (RFC 9112 §5.2).")
            raise BadRequest("A line among the headers is not 'Name: value'.")
        headers.append((match[1].lower(), match[2].strip(b" \t")))
    return headers


def _content_length(headers: list[Header], version: str) -> int | None:
    codings = [
        coding.strip().lower()
        for name, value in headers
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    ]
    codings = [coding for coding in codings if coding not in (b"identity", b"")]
    lengths = {length.strip() for name, value in headers if name == b"content-length" for length in value.split(b",")}
    if any(not _DIGITS.fullmatch(length) for length in lengths) or len(lengths) > 1:
        raise BadRequest("Content-Length is not one number.")
    if codings:
        if codings != [b"chunked"] or version != "1.1":
            raise BadRequest("The only Transfer-Encoding of a request to this server is 'chunked', in HTTP/1.1.")
        return None
    return int(lengths.pop()) if lengths else 0
