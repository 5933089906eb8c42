// A function of AWS Lambda in JavaScript: npm's aws-lambda-ric runs it, as on Lambda. It does what lambda_app.py does.
"use strict";

class NoSuchThing extends Error {
  name = "NoSuchThing";
}

exports.handler = async (event, context) => {
  if ("ms" in event) await new Promise((done) => setTimeout(done, event.ms));
  if ("fail" in event) throw new NoSuchThing(event.fail);
  if ("exit" in event) process.exit(event.exit);
  console.log("runs");
  return {
    payload: event,
    pid: process.pid,
    request: context.awsRequestId,
    arn: context.invokedFunctionArn,
    left_ms: context.getRemainingTimeInMillis(),
    log_stream: context.logStreamName,
  };
};

/** Writes pieces as they come. */
exports.streaming = awslambda.streamifyResponse(async (event, answer) => {
  answer.setContentType("text/plain");
  for (const piece of event.pieces) {
    answer.write(piece);
    await new Promise((done) => setTimeout(done, event.ms));
  }
  if (event.fail) throw new NoSuchThing(event.fail);
  answer.end();
});
