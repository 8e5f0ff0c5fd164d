"""The default of every configuration key of this package and its predecessors."""

from __future__ import annotations

from typing import Any


class Defaults:
    """Defaults of the configuration keys; the meaning of a key stands beside it."""

    #: Where sessions live; not case-sensitive. Unset means "null".
    SESSION_TYPE: str = "null"
    #: A URL that names type and place at once, for example ``sqlite:///var/lib/app/sessions``.
    SESSION_URL: str | None = None
    #: A key of the store is this prefix and the session id. Let it end in a character that no id
    #: contains, such as the colon: so no application's keys begin with another one's prefix and
    #: look like its own.
    SESSION_KEY_PREFIX: str = "session:"
    #: Sign the cookie with SECRET_KEY.
    SESSION_USE_SIGNER: bool = False
    #: ``session.permanent`` of new sessions.
    SESSION_PERMANENT: bool = True
    #: Random bytes in a session id, 16 to 192.
    SESSION_ID_LENGTH: int = 32
    #: "msgpack" or "json"; data in either format is read.
    SESSION_SERIALIZATION_FORMAT: str = "msgpack"
    #: Purge expired sessions on average once in so many requests; None or 0: never.
    #: Only for stores that do not expire by themselves.
    SESSION_CLEANUP_N_REQUESTS: int | None = None
    #: Purge expired sessions at most once a minute, at the start of a request.
    SESSION_AUTODELETE: bool = False
    #: Seconds (or timedelta) that an expiry may lag behind before a read renews it;
    #: None: a twentieth of the lifetime, at most 60 seconds.
    SESSION_TOUCH_INTERVAL: float | None = None
    #: Two requests changed one key: "merge" keeps the later commit's value,
    #: "raise" raises SessionConflict.
    SESSION_CONFLICT: str = "merge"
    #: The store fails: "raise" SessionStoreError, go on with an "empty" session,
    #: or answer "503".
    SESSION_ON_STORE_ERROR: str = "raise"
    #: Values that would change their type when stored are an error, not a warning.
    SESSION_STRICT_TYPES: bool = False
    #: Seconds (or timedelta) that loading, or saving, one session may take.
    SESSION_STORE_TIMEOUT: float = 2.0
    #: Let the native driver of a store serve for a URL and in the place of a plain client object;
    #: False: the client library always does.
    SESSION_NATIVE: bool = True
    #: The store that the sessions come from: one that is missing is looked up there and moved. A
    #: SESSION_TYPE, a URL, a dict of configuration keys, or "cookie" for Flask's own sessions.
    SESSION_MIGRATE_FROM: Any = None
    #: The store that the sessions go to: what other processes have moved there is found.
    SESSION_MIGRATE_TO: Any = None

    #: Path of the database file; relative paths start in the instance folder.
    SESSION_SQLITE: str = "flask_session.sqlite3"
    #: "normal": a power failure may lose the last commits; "full": it may not.
    SESSION_SQLITE_SYNCHRONOUS: str = "normal"

    #: A client object, a redis:// or unix:// URL, or a function that returns a client;
    #: None: 127.0.0.1:6379.
    SESSION_REDIS: Any = None

    #: Directory of the file store; a relative path starts in the working directory.
    SESSION_FILE_DIR: str = "flask_session"
    #: The number of files above which expired ones are swept now and then; 0: never. A live
    #: session is never dropped.
    SESSION_FILE_THRESHOLD: int = 500
    #: Mode of the files.
    SESSION_FILE_MODE: int = 0o600

    #: Any cachelib cache; None: a FileSystemCache in the directory flask_session.
    SESSION_CACHELIB: Any = None

    #: A pool of psycopg2 or psycopg 3, a postgresql:// URL, or a function that returns a pool.
    SESSION_POSTGRESQL: Any = None
    #: The names of the table and of its schema.
    SESSION_POSTGRESQL_TABLE: str = "flask_sessions"
    SESSION_POSTGRESQL_SCHEMA: str = "public"
    #: A flask_sqlalchemy.SQLAlchemy, a sqlalchemy Engine, a database URL, or a function that
    #: returns one; None: the application's, made from SQLALCHEMY_DATABASE_URI.
    SESSION_SQLALCHEMY: Any = None
    SESSION_SQLALCHEMY_TABLE: str = "sessions"
    #: A sequence that numbers the rows.
    SESSION_SQLALCHEMY_SEQUENCE: str | None = None
    SESSION_SQLALCHEMY_SCHEMA: str | None = None
    #: Which of SQLALCHEMY_BINDS; None: SQLALCHEMY_DATABASE_URI.
    SESSION_SQLALCHEMY_BIND_KEY: str | None = None
    #: "auto": a missing table is made at first use; "never": it is the application's to make.
    SESSION_SQLALCHEMY_CREATE: str = "auto"

    #: A client object, a memcached:// URL, or a function that returns a client;
    #: None: 127.0.0.1:11211.
    SESSION_MEMCACHED: Any = None

    #: A pymongo.MongoClient, a mongodb:// URL, or a function that returns a client;
    #: None: 127.0.0.1:27017.
    SESSION_MONGODB: Any = None
    #: Names of the database and of the collection.
    SESSION_MONGODB_DB: str = "flask_session"
    SESSION_MONGODB_COLLECT: str = "sessions"
    #: Of a client that is made here: its dates carry a time zone. The sessions do not depend on it.
    SESSION_MONGODB_TZ_AWARE: bool = False

    #: A peewee database, a URL of playhouse.db_url, or a function that returns a database.
    SESSION_DB: Any = None
    #: Instead of SESSION_DB: the class of a database, and its arguments.
    SESSION_DB_CLASS: Any = None
    SESSION_PEEWEE_CONFIG: Any = None
    #: The name of the table.
    SESSION_PEEWEE_TABLE: str = "sessions"

    #: A client object of elasticsearch-py or opensearch-py, an elasticsearch+https:// or
    #: opensearch+https:// URL, or a function that returns a client; None: one for the host.
    SESSION_ELASTICSEARCH: Any = None
    #: A URL, or a list of them.
    SESSION_ELASTICSEARCH_HOST: str | list[str] = "http://localhost:9200"
    #: The name of the index.
    SESSION_ELASTICSEARCH_INDEX: str = "sessions"

    #: A google.cloud.datastore.Client, or a function that returns one; None: made from the
    #: environment.
    SESSION_DATASTORE: Any = None
    #: The project of a client that is made here; "unknown": that of the environment.
    GCLOUD_APP_PROJECT_ID: str = "unknown"

    #: A google.cloud.firestore.Client, or a function that returns one; None: made from the
    #: environment.
    SESSION_FIRESTORE: Any = None
    #: The name of the collection.
    SESSION_FIRESTORE_COLLECT: str = "flask_session"

    #: A boto3 resource or client of DynamoDB, a boto3.Session, or a function that returns one;
    #: None: one is made from the keys below or from what boto3 finds in the environment.
    SESSION_DYNAMODB: Any = None
    #: The name of the table; None: "Sessions", in Flask-Session's layout; where SESSION_DYNAMODB
    #: is a boto3.Session, or a key of the last four is set, "sessions", in Flask-Session2's.
    SESSION_DYNAMODB_TABLE: str | None = None
    #: True: no table is made. None, False: Flask-Session's is, where the endpoint is local.
    SESSION_DYNAMODB_TABLE_EXISTS: bool | None = None
    #: Credentials, and the place; what is not set is looked for in the environment.
    SESSION_DYNAMODB_KEY_ID: str | None = None
    SESSION_DYNAMODB_SECRET: str | None = None
    SESSION_DYNAMODB_ENDPOINT: str | None = None
    SESSION_DYNAMODB_REGION: str | None = None
