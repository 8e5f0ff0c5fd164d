"""The usage page that users of the predecessor come with: settings by from_object."""

from flask import Flask, session
from flask_session import Session
from redis import Redis

app = Flask(__name__)

SESSION_TYPE = "redis"
SESSION_REDIS = Redis(host="localhost", port=6379)
app.config.from_object(__name__)
Session(app)


@app.route("/set/")
def put():
    session["key"] = "value"
    return "ok"


@app.route("/get/")
def get():
    return session.get("key", "not set")
