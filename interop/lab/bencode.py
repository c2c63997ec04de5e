"""Bencode (BEP 3), written small and independent of the program under test."""


def encode(value):
    """Returns the canonical bytes of an int, bytes, str, list or dict."""
    if isinstance(value, bool):
        raise TypeError("bencode has no booleans")
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray)):
        return b"%d:%s" % (len(value), bytes(value))
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    if isinstance(value, dict):
        items = sorted((k.encode() if isinstance(k, str) else k, v) for k, v in value.items())
        return b"d" + b"".join(encode(k) + encode(v) for k, v in items) + b"e"
    raise TypeError(f"bencode has no {type(value).__name__}")


def decode(data):
    """Returns the one value that `data` holds; keys and strings are bytes."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the end")
    return value


def _decode(data, at):
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind == b"l":
        out, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = _decode(data, at)
            out.append(item)
        return out, at + 1
    if kind == b"d":
        out, at = {}, at + 1
        while data[at : at + 1] != b"e":
            key, at = _decode(data, at)
            out[key], at = _decode(data, at)
        return out, at + 1
    colon = data.index(b":", at)
    start = colon + 1
    end = start + int(data[at:colon])
    return data[start:end], end
