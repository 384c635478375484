"""Values of credentials in what is told of a request: each becomes ``***``, by its name or by its look.

What is masked where:

* behind a name that is one of a credential (:func:`is_credential`), as a header, a parameter of a query or fragment, a
  parameter of a path's segment (``;jsessionid=…``), a cookie, a member of a list, a key of JSON, or, in a query,
  whatever else has a colon behind it;
* in the path behind a segment of such a name, where it looks made up: ``/reset-password/Xk7Qp2Zr``;
* ``user:password@`` in an authority, in every URL within a text, and behind an equals sign;
* what looks like a token wherever it stands: a JWT, keys of services that begin with a known prefix, and what follows
  ``Bearer`` and the other schemes of Authorization.

The same within percent-encoded text, which then is masked as a whole; and so is what is encoded again and again. Where
it is not clear how a server would split a text (``token=a;b=c``), more is masked rather than less.

The time is bounded: no more than :data:`_LOOK` characters of a text are looked at. What is masked once is not
changed again.
"""

import functools
import re
from collections.abc import Sequence
from typing import Final

from meshdev.wire.access import MAX_AUTHORITY, MAX_PATH

MASK: Final = "***"

#: Within a name, of which only lower-case letters and digits are compared.
_WITHIN: Final = (
    *("authorization", "cookie", "token", "secret", "password", "passwd", "passphrase", "passcode", "credential"),
    *("apikey", "accesskey", "privatekey", "authkey", "subscriptionkey", "functionskey", "sharedkey", "signingkey"),
    *("accountkey", "licensekey", "masterkey", "encryptionkey", "clientkey", "storagekey", "sessionkey", "sshkey"),
    *(
        "sessionid",
        "sessid",
        "userpass",
        "signature",
        "assertion",
        "samlresponse",
        "samlrequest",
        "bearer",
        "csrf",
        "xsrf",
    ),
    *("authcode", "devicecode", "verifier", "onetimecode", "wsse", "hmac"),
    *("verificationcode", "confirmationcode", "securitycode", "smscode", "accesscode", "resetcode", "otpcode"),
    *("samlart", "mnemonic"),
)
#: The last word of a name: ``connect.sid``, ``user[pass]``, ``X-Auth``.
_LAST: Final = frozenset(
    {
        *("auth", "jwt", "otp", "pass", "pat", "pin", "psw", "pwd", "session", "sid", "sig", "totp"),
        *("cred", "creds", "cvc", "cvv", "mfa", "passw", "psk", "pw", "pword", "sess", "tok"),
    }
)
#: The whole name: OAuth's code (RFC 6749, 4.1.2), Google's ``key``, CAS' ticket.
_WHOLE: Final = frozenset({"code", "key", "ticket"})
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NOT_COMPARED: Final = re.compile(r"[^a-z0-9]+")

#: What looks like a credential by itself; none begins within a word.
_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:eyJ|eyA|ewo)[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_.-]*"  # RFC 7519: the header is JSON in base64url
    r"|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{15,}"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{10,}"
    r"|[prs]k_(?:live|test)_[A-Za-z0-9]{10,}|sk-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{30,}|hv[bsr]\.[A-Za-z0-9_-]{20,}"
    r"|SG\.[A-Za-z0-9_-]{15,}|dop_v1_[0-9a-f]{20,}|shp[a-z]{2}_[0-9a-fA-F]{20,}|bot[0-9]{6,}:[A-Za-z0-9_-]{30,}"
    r")[A-Za-z0-9_.=-]*"
)
_HOST: Final = re.compile(r"[\w.-]*(?::[0-9]{1,5})?", re.ASCII)
#: Up to the last @ before path and query; with the beginning of a query, which may be a password's.
_USERINFO: Final = re.compile(r"//[^/?#\s]*@")
#: The same of an address without a scheme.
_USER: Final = re.compile(r"(?<==)[^/?#&\s=:@]*:[^/?#&\s@]*@")
#: The same where the text was cut before the @.
_CUT_USERINFO: Final = re.compile(r"://[^/?#\s]*\Z")
_SCHEME: Final = re.compile(
    r"(?<![A-Za-z0-9])(bearer|basic|digest|negotiate|ntlm|hawk|dpop|aws4-hmac-sha256)([ +]++)(?!\*\*\*)"
    r"(?=[^\s&#?]{0,64}(?-i:[0-9A-Z=._~/-]))[^\s&#?]{8,}[^&#]*",  # words have none of these
    re.IGNORECASE,
)
#: A key of JSON, behind which a value follows.
_JSON_KEY: Final = re.compile(r"""["']([\w.\[\]-]{1,64})["']\s*:""")
#: The same without quotes, as in GraphQL.
_KEY: Final = re.compile(r"""(?<![\w.\[\]-])["']?([\w.\[\]-]{1,64}+)["']?\s*:(?!//)""")
#: A segment of a path that no one would choose: a letter and a digit, and not short.
_MADE_UP: Final = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[\w.~%=+-]{8,}", re.ASCII)
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_QUERY: Final = re.compile(r"[?#]")
#: Between a name and what was before it; kept by split().
_SEPARATOR: Final = re.compile(r"([&;?#/,\s])")

#: Without one of these there are neither names nor keys.
_MARKS: Final = frozenset("=%\"'")

#: Characters of a text that are looked at, and how many of them may be the beginning of something that was cut.
_LOOK: Final = 1536
_CUT: Final = 512
#: Names up to this length are kept with what they are: the same ones come again and again.
_KNOWN_NAME: Final = 64
#: Short texts in which there is no credential, and how many of them: the same ones come again and again.
_UNCHANGED: Final[set[str]] = set()
_KNOWN_TEXT: Final = 128
_MAX_UNCHANGED: Final = 512
#: How often a value is decoded that is percent-encoded again and again.
_DECODINGS: Final = 3


def is_credential(name: str) -> bool:
    """Whether the value of a header, parameter or cookie of this *name* is a credential."""
    return _known(name) if len(name) <= _KNOWN_NAME else _is_credential(name)


def _is_credential(name: str) -> bool:
    for _ in range(_DECODINGS):
        name = _decoded(name)
    compared = _NOT_COMPARED.sub("", name.lower())
    if compared in _WHOLE or any(each in compared for each in _WITHIN):
        return True
    words = _WORD.findall(name)
    return bool(words) and words[-1].lower() in _LAST


_known = functools.lru_cache(512)(_is_credential)


def header(name: str, value: str) -> str:
    """The *value* of a header as it may be shown: masked as a whole where that is a credential by its *name*."""
    if is_credential(name):
        return MASK if value else ""
    return text(value)


def authority(found: str) -> str:
    """A Host header, or what stands there in a target, as it may be shown: at most MAX_AUTHORITY characters."""
    if _HOST.fullmatch(found) is not None:
        return found[:MAX_AUTHORITY]
    _, at, host = found.rpartition("@")
    return text(f"{MASK}@{host}" if at else found, MAX_AUTHORITY)


def text(found: str, limit: int = MAX_PATH) -> str:
    """A request's target (RFC 9112, 3.2), or any other text, as it may be shown: at most *limit* characters."""
    if found in _UNCHANGED:
        return found[:limit]
    if len(found) <= _LOOK:
        masked = _masked(found, _DECODINGS)
        if masked == found and len(found) <= _KNOWN_TEXT:
            _remember(found)
        return masked[:limit]
    masked = _masked(_CUT_USERINFO.sub(f"://{MASK}", found[:_LOOK]), _DECODINGS)
    return (masked if masked.endswith(MASK) else masked[:-_CUT])[:limit]


def _remember(found: str) -> None:
    if len(_UNCHANGED) >= _MAX_UNCHANGED:
        _UNCHANGED.clear()
    _UNCHANGED.add(found)


def _masked(found: str, decodings: int) -> str:
    found = _TOKEN.sub(MASK, found)
    if "@" in found:
        found = _USER.sub(f"{MASK}@", _USERINFO.sub(f"//{MASK}@", found))
    if " " in found or "+" in found:
        found = _SCHEME.sub(rf"\1\2{MASK}", found)
    at = _QUERY.search(found)
    begin, end = at.span() if at else (len(found), len(found))
    path, query = found[:begin], found[end:]
    if path.startswith("/"):
        path = _path(path)
    key = _JSON_KEY if path.startswith("/") or "://" in path else _KEY  # in paths a colon is a method's
    if not _MARKS.isdisjoint(path) or (key is _KEY and ":" in path):
        path = "/".join([_piece(piece, key, decodings) for piece in path.split("/")])
    if ":" in query or not _MARKS.isdisjoint(query):
        query = "&".join([_piece(piece, _KEY, decodings) for piece in query.split("&")])
    return path + found[begin:end] + query


def _path(path: str) -> str:
    """Without what looks made up behind the name of a credential."""
    segments = path.split("/")
    for at in range(1, len(segments)):
        if _MADE_UP.fullmatch(segments[at]) is not None and is_credential(segments[at - 1]):
            segments[at] = MASK
    return "/".join(segments)


def _piece(piece: str, key: re.Pattern[str], decodings: int) -> str:
    """What servers may divide further in more than one way: it is masked from its first credential on."""
    begin = _first_credential(piece, key, decodings)
    if begin == len(piece) and "%" in piece and decodings and _SEPARATOR.search(piece) and _hides(piece, decodings):
        begin = piece.find("=") + 1  # encoded in part: http%3A//user:password@b
    return piece[:begin] + MASK if begin < len(piece) else piece


def _first_credential(piece: str, key: re.Pattern[str], decodings: int) -> int:
    """Where the first one begins; its length where there is none."""
    begin, at = len(piece), 0
    for part in _SEPARATOR.split(piece):
        hidden = _hidden(part, decodings)
        if hidden is not None and at + hidden < len(piece):
            begin = at + hidden
            break
        at += len(part)
    for found in key.finditer(piece, 0, begin):
        if is_credential(found[1]):
            return found.end()
    return begin


def _hidden(part: str, decodings: int) -> int | None:
    """Where in *part* its credential begins; None where there is none."""
    *names, _ = part.split("=")
    encoded = part.find("%")
    begin = _named(names)
    if encoded < 0 or (begin is not None and begin <= encoded) or not _hides(part, decodings):
        return begin
    return 0 if not names or _hides(names[0], decodings) else len(names[0]) + 1


def _named(names: Sequence[str]) -> int | None:
    """Where the value of the first of *names* begins that is a credential's."""
    at = 0
    for name in names:
        at += len(name) + 1
        if is_credential(name):
            return at
    return None


def _hides(part: str, decodings: int) -> bool:
    """Whether there is a credential in what is percent-encoded."""
    decoded = _decoded(part)
    return decoded != part and (not decodings or _masked(decoded, decodings - 1) != decoded)


def _decoded(found: str) -> str:
    """Without raising, and each byte a letter: names of credentials are ASCII."""
    return _ENCODED.sub(lambda byte: chr(int(byte[1], 16)), found) if "%" in found else found
