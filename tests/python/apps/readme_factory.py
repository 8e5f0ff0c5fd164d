"""The same in an application factory."""

from flask import Flask, session
from flask_session import Session

SESSION_TYPE = "redis"
sess = Session()


def create_app():
    app = Flask(__name__)
    app.config.from_object(__name__)
    sess.init_app(app)

    @app.route("/set/")
    def put():
        session["key"] = "value"
        return "ok"

    @app.route("/get/")
    def get():
        return session.get("key", "not set")

    return app
