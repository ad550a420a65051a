"""As much of a W&B server, on loopback, as the client needs to start, fill and end a run; it can break in between."""

import json
import threading
import time
import traceback
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Keeps what it is sent.

    Attributes:
      history: run id → lines of its history, each where the client placed it.
      buckets: run id → the last state of the run.
      broken: what it does with every request from now on: None (answer), "die", 429, 500, "hang".
      breaks_after: how many requests with history it takes before that happens.
    """

    def __init__(self, breaks="", breaks_after=1, deaf=()):
        self.history, self.buckets, self.complete = defaultdict(dict), defaultdict(dict), {}
        self.artifacts, self.used, self.operations, self.streamed = {}, [], [], 0
        self.breaks, self.breaks_after, self.broken, self.deaf = breaks, breaks_after, None, deaf
        self.summaries, self.files, self.refused, self.views = {}, [], 0, {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                server.answer(self)

            do_PUT = do_GET = do_POST

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):  # a client that is killed closes its connections
                server.errors.append(traceback.format_exc())

        self.errors = []
        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def get_steps(self, run):
        return [json.loads(self.history[run][place])["_step"] for place in sorted(self.history[run])]

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.broken:
            self.refused += 1
            self._fail(request)
        elif request.path.endswith("/file_stream"):
            self._stream(request, json.loads(body))
        elif request.path.startswith("/upload/"):
            self.files.append(request.path)
            self._send(request, {})
        elif request.path == "/graphql":
            self._query(request, json.loads(body))
        else:
            self._send(request, {}, 404)

    def _fail(self, request):
        if self.broken == "hang":
            time.sleep(600)
        if self.broken == "die":
            request.connection.close()
            request.close_connection = True
        else:
            self._send(request, {"error": "no such luck"}, self.broken)

    def _send(self, request, content, status=200):
        data = json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _stream(self, request, body):
        run = request.path.split("/")[-2]
        if lines := body.get("files", {}).get("wandb-history.jsonl"):
            if self.breaks and self.streamed >= self.breaks_after:
                self.broken = self.breaks
                return self._fail(request)
            self.streamed += 1
            for place, line in enumerate(lines["content"], lines["offset"]):
                self.history[run][place] = line
        if summary := body.get("files", {}).get("wandb-summary.json"):
            self.summaries[run] = json.loads(summary["content"][-1])
        if body.get("complete"):
            self.complete[run] = body.get("exitcode")
        return self._send(request, {"exitcode": None, "limits": {}})

    def _query(self, request, body):
        text, variables = body["query"], body.get("variables") or {}
        name = body.get("operationName") or text.split("(")[0].split("{")[0].split()[-1]
        self.operations.append(name)
        if name in self.deaf:
            return self._send(request, {"error": "no such luck"}, 500)
        answer = getattr(self, f"_answer_{name}", None)
        if answer is None:
            return self._send(request, {"errors": [{"message": f"no {name} here"}], "data": None}, 200)
        return self._send(request, {"data": answer(variables)})

    def _answer_Viewer(self, _):
        return {"viewer": {"id": "v", "entity": "someone", "username": "someone", "email": "", "flags": "{}",
                           "teams": {"edges": []}}}  # fmt: skip

    def _answer_GetDefaultEntity(self, _):
        return {"viewer": {"id": "v", "entity": "someone"}}

    def _answer_GetProjects(self, _):
        node = {"__typename": "Project", "id": "p", "name": "ntklens", "entityName": "someone", "createdAt": "",
                "isBenchmark": False, "user": None}  # fmt: skip
        return {"models": {"edges": [{"node": node}], "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _answer_ProjectInternalId(self, _):
        return {"project": {"internalId": "p"}}

    def _answer_UpsertView2(self, variables):
        return self._answer_upsertView(variables)

    def _answer_upsertView(self, variables):
        number = variables.get("id") or f"Vmlldzo{len(self.views)}"
        self.views[number] = self.views.get(number, {}) | {key: v for key, v in variables.items() if v is not None}
        view = {key: self.views[number].get(key) for key in ("type", "name", "displayName", "description", "spec")}
        project = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
        return {"upsertView": {"view": {"id": number, "project": project, "updatedAt": None, **view}, "inserted": True}}

    def _answer_View(self, variables):
        nodes = [{"node": {"id": number, "displayName": view["displayName"], "spec": view["spec"]}}
                 for number, view in self.views.items() if view["name"] == variables["viewName"]]  # fmt: skip
        return {"project": {"allViews": {"edges": nodes}}}

    def _answer_SpecificReport(self, variables):
        view = self.views.get(variables["reportId"])
        project = {"id": "p", "name": "ntklens", "entityName": "someone"}
        return {"view": view and {"id": variables["reportId"], "project": project, **view}}

    def _answer_ServerFeaturesQuery(self, _):
        return {"serverInfo": {"features": []}}

    def _answer_RunResumeStatus(self, variables):
        run = variables["name"]
        if run not in self.buckets:
            return {"model": {"id": "p", "name": "ntklens", "entity": {"id": "e", "name": "someone"}, "bucket": None}}
        lines = self.history[run]
        last = [lines[max(lines)]] if lines else []
        bucket = {
            "id": run, "name": run, "summaryMetrics": json.dumps(self.summaries.get(run, {})), "displayName": run,
            "logLineCount": 0, "historyLineCount": len(lines), "eventsLineCount": 0,
            "historyTail": json.dumps(last), "eventsTail": "[]", "config": self.buckets[run].get("config") or "{}",
            "tags": [], "notes": None, "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "p", "name": "ntklens", "entity": {"id": "e", "name": "someone"}, "bucket": bucket}}

    def _answer_UpsertBucket(self, variables):
        run = variables["name"] or variables["id"]
        new = run not in self.buckets
        self.buckets[run] |= {key: value for key, value in variables.items() if value is not None}
        bucket = {
            "id": run, "name": run, "displayName": self.buckets[run].get("displayName"), "description": None,
            "config": self.buckets[run].get("config"), "sweepName": None, "historyLineCount": len(self.history[run]),
            "project": {"id": "p", "name": "ntklens", "entity": {"id": "e", "name": "someone"}},
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _answer_CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _answer_CreateArtifact(self, variables):
        given = variables["input"]
        number = f"a{len(self.artifacts)}"
        self.artifacts[number] = given | {"name": given["artifactCollectionName"]}
        return {"createArtifact": {"artifact": {
            "id": number, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}}}  # fmt: skip

    def _answer_CreateArtifactManifest(self, _):
        file = {"id": "f", "uploadUrl": f"{self.address}/upload/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _answer_CreateArtifactFiles(self, variables):
        nodes = [
            {"node": {"storagePath": spec["name"], "uploadUrl": f"{self.address}/upload/{spec['name']}",
                      "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}}}
            for spec in variables["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _answer_CommitArtifact(self, variables):
        number = variables["artifactID"]
        self.artifacts[number]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": number, "digest": self.artifacts[number].get("digest")}}}

    def _answer_UseArtifact(self, variables):
        self.used.append(variables["input"])
        return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}
