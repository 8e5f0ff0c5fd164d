"""worker.py for Django: the same views over its file sessions and its signed cookies.

    python bench/django_worker.py none|file|cookie PLACE

Needs a Python with Django (`python -m tests.services venv django`).
"""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path
from worker import content, serve

STORED = content(300)
numbers = iter(range(1, 1 << 62))


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("text")


def read(request: Any) -> HttpResponse:
    return HttpResponse(request.session.get("user", "nobody"))


def write(request: Any) -> HttpResponse:
    request.session["number"] = next(numbers)
    return HttpResponse("text")


def nested(request: Any) -> HttpResponse:
    request.session["list"][0] = next(numbers)
    request.session.modified = True
    return HttpResponse("text")


def new(request: Any) -> HttpResponse:
    request.session.update({"user": "visitor", "list": [0, 1, 2], **STORED})
    return HttpResponse("text")


def login(request: Any) -> HttpResponse:
    request.session.cycle_key()
    request.session["user"] = "visitor"
    return HttpResponse("text")


def logout(request: Any) -> HttpResponse:
    request.session.flush()
    return HttpResponse("text")


urlpatterns = [
    path(view.__name__, view) for view in (untouched, read, write, nested, new, login, logout)
]


def main() -> None:
    kind, place = sys.argv[1:3]
    engines = {"file": "file", "cookie": "signed_cookies"}
    middleware = ["django.contrib.sessions.middleware.SessionMiddleware"]
    settings.configure(
        SECRET_KEY="bench",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["localhost"],
        MIDDLEWARE=[] if kind == "none" else middleware,
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engines.get(kind, 'file')}",
        SESSION_FILE_PATH=place,
        SESSION_COOKIE_NAME="session",
    )
    django.setup()
    serve(WSGIHandler(), kind != "none", f"django {kind}")


if __name__ == "__main__":
    main()
