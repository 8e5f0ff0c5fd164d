"""Elasticsearch and OpenSearch, through elasticsearch-py and opensearch-py."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.services.elasticsearch import (
    Elasticsearch8Service,
    ElasticsearchService,
    OpenSearchService,
)

from .base import Row, Settings, Where


def elasticsearch_client(url: str, timeout: float, **options: Any) -> Any:
    from elasticsearch import Elasticsearch

    limits = {"request_timeout": timeout, "max_retries": 0, "connections_per_node": 32}
    return Elasticsearch(url, **limits, **options)


def opensearch_client(url: str, timeout: float, **options: Any) -> Any:
    from opensearchpy import OpenSearch

    return OpenSearch(url, timeout=timeout, max_retries=0, **options)


class ElasticsearchRow(Row):
    """Elasticsearch 9 and the client object, which is what Flask-Session2 takes."""

    name = "elasticsearch"
    service = ElasticsearchService
    marks = (pytest.mark.server, pytest.mark.slow)
    variable = "ELASTICSEARCH_URL"
    tick_ms = 1
    max_key = 512
    timeout = 5
    durable = True
    raced = True
    slow_server = True
    predecessors = ("fs2",)
    plain = True
    legacy = """
import elasticsearch
client = elasticsearch.Elasticsearch(where["ELASTICSEARCH_URL"])
# Of a list with values of different types the index cannot make a field.
client.options(ignore_status=400).indices.create(
    index="sessions", mappings={"properties": {"val": {"type": "object", "enabled": False}}}
)
config.update(SESSION_TYPE="elasticsearch", SESSION_ELASTICSEARCH=client)
"""

    connect = staticmethod(elasticsearch_client)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        client = cls.connect(where[cls.variable], cls.timeout)
        return {"SESSION_TYPE": "elasticsearch", "SESSION_ELASTICSEARCH": client}

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        # opensearch-py works with all of them
        with opensearch_client(where[cls.variable], cls.timeout) as own:
            found = own.get(index="sessions", id=key)
            return datetime.fromisoformat(found["_source"]["expiration"]).timestamp()


class Elasticsearch8Row(ElasticsearchRow):
    """Elasticsearch 8 with a password, by its URL alone: the client is made by the package, and the
    same setting works with Elasticsearch 9."""

    name = "elasticsearch-8-host"
    service = Elasticsearch8Service
    variable = "ELASTICSEARCH8_URL"
    predecessors = ()
    marks = (*ElasticsearchRow.marks, pytest.mark.full)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "elasticsearch",
            "SESSION_ELASTICSEARCH_HOST": where[cls.variable],
        }


class OpenSearchRow(ElasticsearchRow):
    """OpenSearch and its own client."""

    name = "elasticsearch-opensearch"
    service = OpenSearchService
    variable = "OPENSEARCH_URL"
    predecessors = ()
    marks = (*ElasticsearchRow.marks, pytest.mark.full)
    connect = staticmethod(opensearch_client)
