"""The usage page that users of the predecessor come with: an interface without an application."""

from flask import Flask, session
from flask_session.redis import RedisSessionInterface
from redis import Redis

app = Flask(__name__)

redis = Redis(host="localhost", port=6379)
app.session_interface = RedisSessionInterface(client=redis)


@app.route("/set/")
def put():
    session["key"] = "value"
    return "ok"


@app.route("/get/")
def get():
    return session.get("key", "not set")
