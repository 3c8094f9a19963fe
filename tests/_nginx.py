"""A real nginx for tests: with the configuration that the docs show, on ports of this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
from _components import require, wait_until_somebody_listens

SITE: Final = Path(__file__).parent / "nginx" / "site.conf"

FRAME: Final = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


def write_config(folder: Path, port: int, ports: tuple[int, int], key: Path) -> Path:
    """Put this machine's ports and files into the file that the docs show."""
    site = SITE.read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8001", f"127.0.0.1:{ports[0]}"),
        ("127.0.0.1:8002", f"127.0.0.1:{ports[1]}"),
        ("/etc/ssl/example.org.pem", str(key)),
        ("/etc/ssl/private/example.org.key", str(key)),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
    config = folder / "nginx.conf"
    config.write_text(FRAME.format(folder=folder, site=site))
    return config


@asynccontextmanager
async def run_nginx(config: Path, port: int) -> AsyncGenerator[None, None]:
    command = [require("nginx"), "-c", str(config), "-e", "stderr", "-p", str(config.parent)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        try:
            await wait_until_somebody_listens(port, process)
            yield
        finally:
            process.terminate()  # its workers end with it
