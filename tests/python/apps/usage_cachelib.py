"""The usage page that users of the predecessor come with: cachelib, with its trailing comma."""

from cachelib.file import FileSystemCache
from flask import Flask, session
from flask_session import Session

app = Flask(__name__)

SESSION_TYPE = "cachelib"
SESSION_SERIALIZATION_FORMAT = "json"
SESSION_CACHELIB = (FileSystemCache(threshold=500, cache_dir="/sessions"),)
app.config.from_object(__name__)
Session(app)


@app.route("/set/")
def put():
    session["key"] = "value"
    return "ok"


@app.route("/get/")
def get():
    return session.get("key", "not set")
