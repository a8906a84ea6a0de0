"""Requests that two programs might read in two ways.

In each, `PATH` is a path of a service, `HOST` is who is asked, and `AUTH` the field that says who asks.
"""

from __future__ import annotations

from dataclasses import dataclass

HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def request(
    *fields: bytes, line: bytes = b"POST PATH HTTP/1.1", host: bytes = b"Host: HOST", body: bytes = b""
) -> bytes:
    return b"\r\n".join([line, *([host] if host else []), b"AUTH", *fields, b"", b""]) + body


def _with(field: bytes, values: dict[str, bytes], body: bytes) -> dict[str, bytes]:
    return {f"{field.decode()} {name}": request(field + value, body=body) for name, value in values.items()}


_LENGTHS = {
    "with a sign": b": +5",
    "less than nothing": b": -5",
    "twice in one": b": 5,5",
    "twice in one, apart": b": 5, 5",
    "another in one": b": 5, 6",
    "hexadecimal": b": 0x5",
    "with an underscore": b": 1_0",
    "with a fraction": b": 5.0",
    "with an exponent": b": 5e0",
    "with a parameter": b": 5;a=b",
    "with a blank in it": b": 5 5",
    "with a vertical tab": b": \x0b5",
    "with a form feed behind": b": 5\x0c",
    "with NUL behind": b": 5\0",
    "with a no-break space behind": b": 5\xa0",
    "in other digits": b": \xd9\xa5",
    "empty": b":",
    "of 2^64 and 5": b": 18446744073709551621",
    "of twenty nines": b": 99999999999999999999",
    "of many zeros": b": 00000000000000000005",
    "after a blank": b" : 5",
    "after a tab": b"\t: 5",
    "on the next line": b":\r\n 5",
    "quoted": b': "5"',
}
_CODINGS = {
    "and identity": b": chunked, identity",
    "after identity": b": identity, chunked",
    "after gzip": b": gzip, chunked",
    "identity": b": identity",
    "gzip": b": gzip",
    "of another name": b": xchunked",
    "of a longer name": b": chunkedx",
    "of a shorter name": b": chunk",
    "twice in one": b": chunked, chunked",
    "with a comma": b": chunked,",
    "behind a comma": b": ,chunked",
    "with a parameter": b": chunked;q=1",
    "quoted": b': "chunked"',
    "with a vertical tab": b": \x0bchunked",
    "with a vertical tab behind": b": chunked\x0b",
    "with a form feed": b": \x0cchunked",
    "with NUL": b": chunked\0",
    "with a no-break space": b": \xa0chunked",
    "with a delete": b": chunked\x7f",
    "with a next line": b": chunked\x85",
    "in two words": b": chunked chunked",
    "empty": b":",
    "after a blank": b" : chunked",
    "after a tab": b"\t: chunked",
    "on the next line": b":\r\n chunked",
    "on the next line after a tab": b": \r\n\tchunked",
    "half on the next line": b": chun\r\n ked",
    "after a carriage return": b":\rchunked",
    "after a line feed": b":\nchunked",
    "before a line break in the name": b"\r\n: chunked",
    "with NUL in the name": b"\0: chunked",
}
_CL, _TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"

_HEADS = {
    "both lengths": request(_CL, _TE, body=HELLO),
    "both lengths, the other way": request(_TE, _CL, body=HELLO),
    "both lengths, in other letters": request(
        b"content-length: 5", b"TRANSFER-ENCODING: CHUNKED", body=HELLO
    ),
    "both lengths, one of nothing": request(b"Content-Length: 0", _TE, body=HELLO),
    "two lengths": request(_CL, b"Content-Length: 6", body=b"hello!"),
    "two lengths, one of nothing": request(b"Content-Length: 0", _CL, body=b"hello"),
    "the same length twice": request(_CL, _CL, body=b"hello"),
    "two codings": request(_TE, _TE, body=HELLO),
    "two codings, one identity": request(b"Transfer-Encoding: identity", _TE, body=HELLO),
    "chunks of an old version": request(_TE, line=b"POST PATH HTTP/1.0", body=HELLO),
    "a coding behind a carriage return": request(b"X: y\r" + _TE, body=HELLO),
    "a coding behind a line feed": request(b"X: y\n" + _TE, body=HELLO),
    "a coding behind a blank": request(b" " + _TE, body=HELLO),
    "a length behind a line feed": request(b"X: y\n" + _CL, body=b"hello"),
    "a length behind a blank": request(b"X: y", b" " + _CL, body=b"hello"),
    "a length behind NUL": request(b"X: y\0\r\n" + _CL, body=b"hello"),
    "an upgrade with a body": request(b"Connection: Upgrade", b"Upgrade: websocket", _CL, body=b"hello"),
    "two upgrades": request(b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"),
    "no host": request(host=b""),
    "two hosts": request(b"Host: HOST"),
    "two hosts, another second": request(b"Host: evil.example"),
    "two hosts in one": request(host=b"Host: HOST, evil.example"),
    "a host with a blank": request(host=b"Host: HOST evil"),
    "a host with a user": request(host=b"Host: evil@HOST"),
    "a host with a path": request(host=b"Host: HOST/evil"),
    "a host after a blank": request(host=b"Host : HOST"),
    "a host on the next line": request(host=b"Host:\r\n HOST"),
    "another server's target": request(line=b"GET http://evil.examplePATH HTTP/1.1"),
    "a server with a user": request(line=b"GET http://evil@HOSTPATH HTTP/1.1"),
    "ftp": request(line=b"GET ftp://HOSTPATH HTTP/1.1"),
    "no scheme": request(line=b"GET HOSTPATH HTTP/1.1"),
    "a target for CONNECT": request(line=b"CONNECT HOST HTTP/1.1"),
    "a star for POST": request(line=b"POST * HTTP/1.1"),
    "a target behind a star": request(line=b"GET *PATH HTTP/1.1"),
    "a blank in the target": request(line=b"GET PATH/a b HTTP/1.1"),
    "a version in the target": request(line=b"GET PATH HTTP/1.1 HTTP/1.1"),
    "a blank behind the line": request(line=b"GET PATH HTTP/1.1 "),
    "a blank before the line": request(line=b" GET PATH HTTP/1.1"),
    "two blanks in the line": request(line=b"GET  PATH HTTP/1.1"),
    "tabs in the line": request(line=b"GET\tPATH\tHTTP/1.1"),
    "a vertical tab in the line": request(line=b"GET\x0bPATH HTTP/1.1"),
    "an empty line before": b"\r\n" + request(line=b"GET PATH HTTP/1.1"),
    "a line feed before": b"\n" + request(line=b"GET PATH HTTP/1.1"),
    "a carriage return in the target": request(line=b"GET PATH/\rX HTTP/1.1"),
    "NUL in the target": request(line=b"GET PATH/\0 HTTP/1.1"),
    "a delete in the target": request(line=b"GET PATH/\x7f HTTP/1.1"),
    "a control character in the target": request(line=b"GET PATH/\x01 HTTP/1.1"),
    "beyond ASCII in the target": request(line=b"GET PATH/\xc3\xa9 HTTP/1.1"),
    "no version": request(line=b"GET PATH"),
    "HTTP/0.9": b"GET PATH\r\n",
    "HTTP/0.9 with a version": request(line=b"GET PATH HTTP/0.9"),
    "HTTP/1.2": request(line=b"GET PATH HTTP/1.2"),
    "HTTP/1.10": request(line=b"GET PATH HTTP/1.10"),
    "HTTP/01.1": request(line=b"GET PATH HTTP/01.1"),
    "HTTP/1,1": request(line=b"GET PATH HTTP/1,1"),
    "HTTP/2.0": request(line=b"GET PATH HTTP/2.0"),
    "http/1.1": request(line=b"GET PATH http/1.1"),
    "HTTPS/1.1": request(line=b"GET PATH HTTPS/1.1"),
    "the start of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "the start of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "a method of no letters": request(line=b"G(T PATH HTTP/1.1"),
    "a long method": request(line=b"G" * 100 + b" PATH HTTP/1.1"),
    "no method": request(line=b" PATH HTTP/1.1"),
    "bare line feeds": request(line=b"GET PATH HTTP/1.1").replace(b"\r\n", b"\n"),
    "a bare line feed at the end": request(line=b"GET PATH HTTP/1.1")[:-2] + b"\n",
    "bare carriage returns": request(line=b"GET PATH HTTP/1.1").replace(b"\r\n", b"\r") + b"\r\n\r\n",
    "two carriage returns": request(b"X: y\r"),
    "folded": request(b"X: y", b" z"),
    "folded with a tab": request(b"X: y", b"\tz"),
    "folded emptily": request(b"X: y", b" "),
    "folded at once": request(host=b" X: y\r\nHost: HOST"),
    "no name": request(b": y"),
    "no colon": request(b"X"),
    "a name with a blank": request(b"X Y: z"),
    "a name with a colon of its own": request(b"X\r\n:Y: z"),
    "a name beyond ASCII": request(b"X\xe9: y"),
    "a name with NUL": request(b"X\0: y"),
    "a name in brackets": request(b"(X): y"),
    "a value with NUL": request(b"X: y\0z"),
    "a value with a bell": request(b"X: y\x07"),
    "a value with a delete": request(b"X: y\x7f"),
    "a long target": request(line=b"GET PATH/" + b"a" * 20_000 + b" HTTP/1.1"),
    "an endless target": request(line=b"GET PATH/" + b"a" * 200_000 + b" HTTP/1.1"),
    "an endless field": request(b"X: " + b"y" * 200_000),
    "an endless name": request(b"X" * 200_000 + b": y"),
    "endless fields": request(*[b"X: y"] * 5000),
}
_CHUNKS = {
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size below nothing": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size behind a blank": b" 5\r\nhello\r\n0\r\n\r\n",
    "a size before a blank": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size before a vertical tab": b"5\x0b\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size of no digits": b"g\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no size but an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "a size of 2^64 and 5": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size of 2^32 of Fs": b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "a size of many zeros": b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n",
    "a size in other digits": b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
    "a size before a comma": b"5,5\r\nhello\r\n0\r\n\r\n",
    "a size before NUL": b"5\0\r\nhello\r\n0\r\n\r\n",
    "a bare line feed behind a size": b"5\nhello\r\n0\r\n\r\n",
    "a bare carriage return behind a size": b"5\rhello\r\n0\r\n\r\n",
    "two carriage returns behind a size": b"5\r\r\nhello\r\n0\r\n\r\n",
    "an extension with a line feed": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension with a carriage return": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "an extension with NUL": b"5;a=\0\r\nhello\r\n0\r\n\r\n",
    "an extension without a semicolon": b"5 a=b\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a bare line feed behind the data": b"5\r\nhello\n0\r\n\r\n",
    "a bare carriage return behind the data": b"5\r\nhello\r0\r\n\r\n",
    "nothing behind the data": b"5\r\nhello0\r\n\r\n",
    "more data than was said": b"5\r\nhelloX\r\n0\r\n\r\n",
    "less data than was said": b"6\r\nhello\r\n0\r\n\r\n",
    "bare line feeds at the end": b"5\r\nhello\r\n0\n\n",
    "a bare line feed at the end": b"5\r\nhello\r\n0\r\n\n",
    "a trailer after a blank": b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "a trailer that is folded": b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a trailer with a line feed": b"5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
    "a trailer with NUL": b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    "endless trailers": b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
}

NOT_CLEAR = {
    **_with(b"Content-Length", _LENGTHS, b"hello"),
    **_with(b"Transfer-Encoding", _CODINGS, HELLO),
    **_HEADS,
    **{f"in chunks, {name}": request(_TE, body=body) for name, body in _CHUNKS.items()},
}
"""What must not be answered as a request, and hides another one behind it."""


@dataclass(frozen=True)
class Clear:
    """An odd request with one meaning. With `last`, no other one can follow it on its connection."""

    data: bytes
    method: bytes = b"POST"
    path: bytes = b"/"
    body: bytes = b""
    last: bool = False


CLEAR = {
    "a plain one": Clear(request()),
    "a length": Clear(request(_CL, body=b"hello"), body=b"hello"),
    "a length with zeros": Clear(request(b"Content-Length: 005", body=b"hello"), body=b"hello"),
    "a length among blanks": Clear(request(b"Content-Length:\t 5 \t", body=b"hello"), body=b"hello"),
    "a length at once": Clear(request(b"content-LENGTH:5", body=b"hello"), body=b"hello"),
    "a length of nothing": Clear(request(b"Content-Length: 0")),
    "a length that others might see": Clear(
        request(_CL, b"Content_Length: 50", b"X-Content-Length: 50", body=b"hello"), body=b"hello"
    ),
    "a coding that others might see": Clear(
        request(_CL, b"Transfer_Encoding: chunked", b"TE: chunked", body=b"hello"), body=b"hello"
    ),
    "a length that Connection names": Clear(
        request(_CL, b"Connection: Content-Length", body=b"hello"), body=b"hello"
    ),
    "a coding that Connection names": Clear(
        request(_TE, b"Connection: Transfer-Encoding", body=HELLO), body=b"hello"
    ),
    "a host that Connection names": Clear(request(b"Connection: Host")),
    "chunks": Clear(request(_TE, body=HELLO), body=b"hello"),
    "chunks in capitals": Clear(request(b"TRANSFER-ENCODING: CHUNKED", body=HELLO), body=b"hello"),
    "chunks among blanks": Clear(request(b"Transfer-Encoding:\t chunked \t", body=HELLO), body=b"hello"),
    "chunks with extensions": Clear(
        request(_TE, body=b'5 ; a="0\\"" ;b\r\nhello\r\n0;c\r\n\r\n'), body=b"hello"
    ),
    "chunks with zeros": Clear(request(_TE, body=b"0005\r\nhello\r\n000\r\n\r\n"), body=b"hello"),
    "chunks that look like requests": Clear(
        request(_TE, body=b"13\r\nGET /x HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"), body=b"GET /x HTTP/1.1\r\n\r\n"
    ),
    "trailers that say another length": Clear(
        request(_TE, body=b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil\r\nX: y\r\n\r\n"),
        body=b"hello",
    ),
    "a body for GET": Clear(request(_CL, line=b"GET PATH HTTP/1.1", body=b"hello"), b"GET", body=b"hello"),
    "chunks for GET": Clear(request(_TE, line=b"GET PATH HTTP/1.1", body=HELLO), b"GET", body=b"hello"),
    "a body for HEAD": Clear(request(_CL, line=b"HEAD PATH HTTP/1.1", body=b"hello"), b"HEAD", body=b"hello"),
    "a body for DELETE": Clear(
        request(_CL, line=b"DELETE PATH HTTP/1.1", body=b"hello"), b"DELETE", body=b"hello"
    ),
    "a body that need not be waited for": Clear(
        request(_CL, b"Expect: 100-continue", body=b"hello"), body=b"hello"
    ),
    "a body that is a request": Clear(
        request(b"Content-Length: 18", body=b"GET /x HTTP/1.1\r\n\r"), body=b"GET /x HTTP/1.1\r\n\r"
    ),
    "the old version": Clear(request(line=b"GET PATH HTTP/1.0"), b"GET", last=True),
    "the old version, kept": Clear(
        request(b"Connection: keep-alive", _CL, line=b"POST PATH HTTP/1.0", body=b"hello"),
        body=b"hello",
        last=True,
    ),
    "the last one": Clear(request(b"Connection: X, close"), last=True),
    "HTTP/2 if you like": Clear(
        request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    ),
    "a server's target": Clear(request(line=b"GET http://HOSTPATH/a HTTP/1.1"), b"GET", b"/a"),
    "a target with dots": Clear(
        request(line=b"GET PATH/a/../b/./%2e%2e/ HTTP/1.1"), b"GET", b"/a/../b/./%2e%2e/"
    ),
    "a target above the top": Clear(
        request(line=b"GET PATH/" + b"../" * 9 + b" HTTP/1.1"), b"GET", b"/" + b"../" * 9
    ),
    "a target with slashes": Clear(request(line=b"GET PATH//a//b HTTP/1.1"), b"GET", b"//a//b"),
    "a target with an encoded line break": Clear(
        request(line=b"GET PATH/%0d%0aX:%20y HTTP/1.1"), b"GET", b"/%0d%0aX:%20y"
    ),
    "a target with an encoded NUL": Clear(request(line=b"GET PATH/%00 HTTP/1.1"), b"GET", b"/%00"),
    "a target with a bad escape": Clear(request(line=b"GET PATH/%zz HTTP/1.1"), b"GET", b"/%zz"),
    "a target with odd characters": Clear(
        request(line=b'GET PATH/"<>\\^`{|}?[] HTTP/1.1'), b"GET", b'/"<>\\^`{|}?[]'
    ),
    "a method of one's own": Clear(request(line=b"PURGE PATH HTTP/1.1"), b"PURGE"),
    "a method in small letters": Clear(request(line=b"get PATH HTTP/1.1"), b"get"),
    "a value beyond ASCII": Clear(request(b"X: \xe9\x80\xff")),
    "an empty value": Clear(request(b"X:")),
    "a name of odd characters": Clear(request(b"!#$%&'*+-.^_`|~: y")),
    "another host, said elsewhere": Clear(request(b"X-Host: evil", b"X-Forwarded-Host: evil")),
}
"""What is a request, and may be followed by another one."""
