"""The readme of the other predecessor, as it stands: no client, no secret key."""

from flask import Flask, session
from flask_session import Session

app = Flask(__name__)
SESSION_TYPE = "redis"
app.config.from_object(__name__)
Session(app)


@app.route("/set/")
def put():
    session["key"] = "value"
    return "ok"


@app.route("/get/")
def get():
    return session.get("key", "not set")
