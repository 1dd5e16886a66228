"""Answers questions, one line of JSON each, until its input ends. Argument: the path of remote_server.so."""

import json
import sys

from googlesql.analysis import analyze
from googlesql.execution import execute
from googlesql.service import Service, running


def answer(service: Service, question: dict) -> dict:
    if question["do"] == "analyze":
        told = (question["statements"], question["catalog"], question["parameters"])
        return {"analyses": analyze(service, *told)}
    return execute(service, question["query"], question["tables"])


with running(sys.argv[1]) as service:
    for line in sys.stdin:
        print(json.dumps(answer(service, json.loads(line))), flush=True)  # noqa: T201 - the answer
