"""Certificates for servers that speak TLS: an authority, a server's and a client's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .base import HOST, clean_environment, require_command

_EXTENSIONS = f"""subjectAltName=DNS:localhost,IP:{HOST}
extendedKeyUsage=serverAuth,clientAuth
authorityKeyIdentifier=keyid
subjectKeyIdentifier=hash
"""


def make_certificates(folder: Path) -> Path:
    """Makes ca.crt, server.crt, server.key, client.crt and client.key in a folder, unless they are
    there, and returns it. The names are localhost and 127.0.0.1, the keys have no password."""
    openssl = require_command("openssl", "openssl")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if (folder / "client.crt").exists():
        return folder

    def run(*arguments: str) -> None:
        subprocess.run(
            [openssl, *arguments],
            cwd=folder, env=clean_environment(), check=True, capture_output=True,
        )  # fmt: skip

    new_key = ("-newkey", "rsa:2048", "-nodes")
    run(
        *("req", "-x509", *new_key, "-days", "30", "-subj", "/CN=authority of the tests"),
        *("-keyout", "ca.key", "-out", "ca.crt", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    (folder / "extensions").write_text(_EXTENSIONS)
    for name in ("server", "client"):
        run(
            *("req", *new_key, "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "30", "-out", f"{name}.crt", "-extfile", "extensions"),
        )
    return folder
