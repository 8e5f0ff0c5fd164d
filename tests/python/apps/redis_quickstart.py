"""The quickstart that users of the predecessor come with, as it stands."""

from flask import Flask, redirect, session, url_for
from flask_session import Session
from redis import Redis

app = Flask(__name__)
app.config["SECRET_KEY"] = "change me"
app.config["SESSION_TYPE"] = "redis"
app.config["SESSION_PERMANENT"] = False
app.config["SESSION_REDIS"] = Redis(host="127.0.0.1", port=6379, db=0)
Session(app)


@app.route("/login")
def login():
    session["username"] = "ann"
    return redirect(url_for("index"))


@app.route("/")
def index():
    username = session.get("username")
    return f"Hello, {username}" if username else "You are not logged in"


@app.route("/logout")
def logout():
    session.pop("username", None)
    return redirect(url_for("index"))
