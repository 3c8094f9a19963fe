"""TLS as a client speaks it: with whom, whom to trust, and what went wrong in words."""

from __future__ import annotations

import functools
import ssl
from typing import Any, Final

import trio


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return the context for those who bring none: making one takes 10 ms and more."""
    context = ssl.create_default_context()
    # WebSockets are opened by HTTP/1.1 here: a server that prefers HTTP/2 has to know.
    context.set_alpn_protocols(["http/1.1"])
    return context


def certified_name(host: str) -> str:
    """Return the name that certificates are for: no zone, no last dot (RFC 6066, section 3)."""
    return host.partition("%")[0].removesuffix(".")


def check_client_context(name: str, context: object) -> None:
    """Check that a context can be used for a client.

    Raises:
      TypeError: it is none.
      ValueError: it is for servers.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{name} is an ssl.SSLContext, not {type(context).__name__}")
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="host")
    except ssl.SSLError as exc:
        raise ValueError(f"this {name} is not for a client: {exc.reason or exc}") from exc


async def speak_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext, server_hostname: str
) -> trio.SSLStream[Any]:
    """Put TLS over a stream, which is closed if that fails or is cancelled.

    Raises:
      trio.BrokenResourceError: it failed; `explain` tells why.
    """
    try:
        tls = trio.SSLStream(
            stream, context, server_hostname=server_hostname, https_compatible=True
        )
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


def explain(error: trio.BrokenResourceError) -> str:
    """Say why a stream broke, and if it was TLS, what to do."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = _CERTIFICATES.get(cause.verify_code, "")
        return f"the certificate is refused: {cause.verify_message}" + (hint and f" ({hint})")
    if isinstance(cause, ssl.SSLError) and cause.reason is not None:
        hint = _ALERTS.get(cause.reason.upper().replace(" ", "_"), "")
        return f"{hint} ({cause.reason})" if hint else str(cause)
    return str(cause or error) or "the connection was lost"


TRUST_ANOTHER: Final = "ssl_context=ssl.create_default_context(cafile=...)"
_STRANGE: Final = (
    "nobody whom this side trusts has signed it; an authority of your own is trusted by"
    f" {TRUST_ANOTHER}"
)
_OTHER_NAME: Final = "connect by a name that it is made for, or give that as server_hostname"
_CERTIFICATES: Final = {  # X509_V_ERR_... of OpenSSL
    9: "it is not valid yet: is the clock of this machine right?",
    10: "the server needs a new one, unless the clock of this machine is wrong",
    18: _STRANGE,
    19: _STRANGE,
    20: _STRANGE,
    21: _STRANGE,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}

_NO_TLS: Final = "no TLS is spoken there: ws:// instead of wss://, or another port?"
_NO_COMMON: Final = "the other side speaks no version of TLS or no cipher that this side speaks"
_WANTS_OURS: Final = (
    "the server wants a certificate of yours: ssl_context.load_cert_chain(certfile, keyfile)"
)
_REFUSES_OURS: Final = "the server refuses our certificate"
_UNKNOWN_NAME: Final = "the server does not know the name it was asked for: see server_hostname"
_NO_HTTP: Final = "the server speaks no HTTP/1.1 over TLS"
_ALERTS: Final = {  # as OpenSSL 3.0 to 3.5 name them
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": "the other side ended the connection in the middle of TLS",
    "UNSUPPORTED_PROTOCOL": _NO_COMMON,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_COMMON,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"{_NO_COMMON}; or {_WANTS_OURS}",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTS_OURS,
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSES_OURS,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSES_OURS,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _REFUSES_OURS,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _REFUSES_OURS,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSES_OURS,
    "TLSV1_UNRECOGNIZED_NAME": _UNKNOWN_NAME,
    "TLSV1_ALERT_UNRECOGNIZED_NAME": _UNKNOWN_NAME,
    "NO_APPLICATION_PROTOCOL": _NO_HTTP,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": _NO_HTTP,
}
