"""The tutorial that users of the predecessor come with, as it stands."""

from flask import Flask, redirect, render_template_string, request, session
from flask_session import Session

app = Flask(__name__)
app.config["SECRET_KEY"] = "change me"
app.config["SESSION_TYPE"] = "filesystem"
Session(app)


@app.route("/")
def index():
    return render_template_string("{{ session.get('name', 'nobody') }}")


@app.route("/login", methods=["POST"])
def login():
    session["name"] = request.form.get("name")
    return redirect("/")


@app.route("/logout")
def logout():
    session["name"] = None
    session.clear()
    return redirect("/")
