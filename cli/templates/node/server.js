// The function {{name}}: a payload of "Ada" is answered with {"hello":"Ada"}.

import { createServer } from "node:http";

/** Returns the answer to a payload; both are what JSON can say. */
export function answer(payload) {
  return { hello: payload };
}

export function server() {
  // Idle connections are kept: who calls closes them, and no call meets one that is just being closed.
  return createServer({ keepAliveTimeout: 0 }, async (request, response) => {
    const reply = (status, value) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    };
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      let payload;
      try {
        payload = JSON.parse(Buffer.concat(chunks).toString());
      } catch (error) {
        // Any status but 2xx says that the invocation failed.
        return reply(400, { error: `the payload is no JSON: ${error.message}` });
      }
      reply(200, await answer(payload));
    } catch (error) {
      console.error(error);
      reply(500, { error: error.message });
    }
  });
}
