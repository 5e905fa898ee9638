#!/usr/bin/env python3
"""External steps about plates and the screen, in plain Python: a laboratory's ledger and its notebook.

Asked about a plate it writes one line into the ledger, a file of JSON lines whose path is its argument, and says that note
was taken. Asked about the screen it counts the calls, writes a line too, and answers with a page that is kept beside the
results. A request that comes again, after a crash or because its answer was lost, has the idempotency id of the first one:
the ledger then has its line already. A real one would call a LIMS or an electronic notebook in the same way.

Requests are lines of JSON on standard input, answers lines on standard output; messages for people go to standard error.
"""

import json
import os
import sys


def entry(request):
    """What the ledger has of a request."""
    line = {"id": request["idempotency_id"], "run": request["run"], "about": request["level"]}
    if request["level"] == "plate":
        table = request["inputs"]["aggregate"]
        line.update(plate=request["plate"], wells=len(table["wells"]), profiles=table["uri"])
    return line


def write_once(path, line):
    """Adds a line to the ledger, unless it is there."""
    known = set()
    if os.path.exists(path):
        with open(path, encoding="utf-8") as ledger:
            known = {json.loads(text)["id"] for text in ledger if text.strip()}
    if line["id"] in known:
        return
    with open(path, "a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


def page(request):
    """The notebook's page about a screen."""
    calls, hits = {}, []
    for found in request["inputs"]["compare"]["compounds"]:
        calls[found["call"]] = calls.get(found["call"], 0) + 1
        if found["call"].endswith("hit"):
            hits.append(found["compound"])
    tables = sorted(request["inputs"]["export"]["files"])
    return {"title": f"Screen {request['run']}", "calls": calls, "hits": hits, "tables": tables}


def answer(request, ledger):
    """The answer to one request; every problem becomes one, so that the run says what is wrong."""
    reply = {"correlation_id": request["correlation_id"]}
    try:
        write_once(ledger, entry(request))
        if request["level"] == "screen":
            reply["result"] = page(request)
        else:
            reply["acknowledged"] = True
    except OSError as error:
        # A share that is away for a moment.
        reply.update(error=str(error), retry=True)
    except (KeyError, ValueError) as error:
        reply.update(error=f"{type(error).__name__}: {error}")
    return reply


if __name__ == "__main__":
    for text in sys.stdin:
        if text.strip():
            print(json.dumps(answer(json.loads(text), sys.argv[1])), flush=True)
