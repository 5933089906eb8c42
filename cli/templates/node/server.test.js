import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";

import { server } from "./server.js";

const listening = server();
let url;

before(async () => {
  listening.listen(0, "127.0.0.1");
  await once(listening, "listening");
  url = `http://127.0.0.1:${listening.address().port}/`;
});

after(() => {
  listening.close();
  listening.closeAllConnections();
});

test("whom the payload names is greeted", async () => {
  const response = await fetch(url, { method: "POST", body: '"Ada"' });
  assert.deepEqual(await response.json(), { hello: "Ada" });
});

test("a payload that is no JSON is refused", async () => {
  const response = await fetch(url, { method: "POST", body: "{" });
  assert.equal(response.status, 400);
});
