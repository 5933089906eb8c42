'use strict'
// @aws-sdk/client-lambda with another address and an access key of Hearth's: each call to another node, and what is refused.
//
// usage: HEARTH_TEST_KEYS='{"good": {accessKeyId, secretAccessKey}, "revoked": …, "reader": …}' node aws_api.js NODES

const {
  LambdaClient, InvokeCommand, InvokeWithResponseStreamCommand, ListFunctionsCommand, GetFunctionCommand,
  UpdateFunctionConfigurationCommand, PutFunctionConcurrencyCommand
} = require('@aws-sdk/client-lambda')
const { assert, nodes, nextNode, step, main } = require('./cluster.js')

const keys = JSON.parse(process.env.HEARTH_TEST_KEYS)

/** A client of another node with each call. */
const client = (credentials, more) => new LambdaClient({
  endpoint: nextNode().functions.replace(/\/$/, ''),
  region: 'eu-central-1',
  credentials,
  maxAttempts: 1,
  ...more
})

const send = (command, credentials = keys.good, more = {}) => client(credentials, more).send(command)
const text = bytes => Buffer.from(bytes).toString()
const invoke = payload => new InvokeCommand({ FunctionName: 'worker', Payload: JSON.stringify(payload) })

/** A call is refused by an exception of this name and status. */
async function refused (name, status, call) {
  await assert.rejects(call, error => {
    assert.equal(error.name, name, `${error}`)
    assert.equal(error.$metadata.httpStatusCode, status)
    return true
  })
}

main(async () => {
  await step('each node answers a call that is signed', async () => {
    for (const _ of nodes) {
      const answer = await send(invoke({ n: 1 }))
      assert.deepEqual(JSON.parse(text(answer.Payload)).got, { n: 1 })
      assert.equal(answer.ExecutedVersion, '$LATEST')
      assert.ok(answer.$metadata.requestId)
    }
  })
  await step('one whose name is an ARN with a qualifier', async () => {
    const name = 'arn:aws:lambda:eu-central-1:123456789012:function:worker:$LATEST'
    const answer = await send(new InvokeCommand({ FunctionName: name, Payload: '{"é": "ü b"}' }))
    assert.deepEqual(JSON.parse(text(answer.Payload)).got, { é: 'ü b' })
  })
  await step('one whose qualifier stands in the query', async () => {
    const answer = await send(new InvokeCommand({ FunctionName: 'worker', Qualifier: '$LATEST', LogType: 'Tail', Payload: '{"say": "x"}' }))
    assert.equal(Buffer.from(answer.LogResult, 'base64').toString(), 'x\n')
  })
  await step('one that is not waited for', async () => {
    const answer = await send(new InvokeCommand({ FunctionName: 'worker', InvocationType: 'Event', Payload: '{}' }))
    assert.equal(answer.StatusCode, 202)
  })
  await step('one of a large payload', async () => {
    const answer = await send(invoke({ x: 'x'.repeat(2_000_000) }))
    assert.equal(JSON.parse(text(answer.Payload)).got.x.length, 2_000_000)
  })
  await step('an answer that streams', async () => {
    const command = new InvokeWithResponseStreamCommand({ FunctionName: 'worker', Payload: '{"stream": ["a", "b", "c"]}' })
    const { EventStream: events } = await send(command)
    let told = ''
    let end
    for await (const event of events) {
      if (event.PayloadChunk) told += text(event.PayloadChunk.Payload)
      end = event.InvokeComplete ?? end
    }
    assert.equal(told, 'abc')
    assert.ok(end && end.ErrorCode === undefined)
  })
  await step('records are those of the space of the key', async () => {
    const { Functions: functions } = await send(new ListFunctionsCommand({}))
    assert.deepEqual(functions.map(it => it.FunctionName), ['hook', 'worker'])
    await send(new PutFunctionConcurrencyCommand({ FunctionName: 'hook', ReservedConcurrentExecutions: 50 }))
    const { Concurrency: limit } = await send(new GetFunctionCommand({ FunctionName: 'hook' }))
    assert.equal(limit.ReservedConcurrentExecutions, 50)
  })
  await step('a process is changed by admins only', async () => {
    const change = new PutFunctionConcurrencyCommand({ FunctionName: 'worker', ReservedConcurrentExecutions: 50 })
    await refused('AccessDeniedException', 403, send(change))
  })
  await step('who has another secret is refused', async () => {
    const wrong = { ...keys.good, secretAccessKey: keys.reader.secretAccessKey }
    await refused('InvalidSignatureException', 403, send(invoke({}), wrong))
  })
  await step('whose key is revoked is refused on every node', async () => {
    for (const _ of nodes) {
      await refused('UnrecognizedClientException', 403, send(invoke({}), keys.revoked))
    }
  })
  await step('whose key is unknown is refused', async () => {
    const stranger = { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' }
    await refused('UnrecognizedClientException', 403, send(invoke({}), stranger))
  })
  await step('whose clock is off by more than five minutes is refused', async () => {
    for (const minutes of [-6, 6]) {
      await refused('InvalidSignatureException', 403, send(invoke({}), keys.good, { systemClockOffset: minutes * 60_000 }))
    }
    for (const minutes of [-4, 4]) {
      await send(invoke({}), keys.good, { systemClockOffset: minutes * 60_000 })
    }
  })
  await step('a key does no more than it may', async () => {
    await send(new GetFunctionCommand({ FunctionName: 'worker' }), keys.reader)
    await refused('AccessDeniedException', 403, send(invoke({}), keys.reader))
    const change = new UpdateFunctionConfigurationCommand({ FunctionName: 'hook', Timeout: 5 })
    await refused('AccessDeniedException', 403, send(change, keys.reader))
  })
  await step('a request without a signature is refused', async () => {
    const answer = await fetch(new URL('/2015-03-31/functions/', nextNode().functions))
    assert.equal(answer.status, 403)
    assert.equal(answer.headers.get('x-amzn-errortype'), 'MissingAuthenticationTokenException')
  })
  await step('a request that is altered on its way is refused', async () => {
    const altering = client(keys.good)
    altering.middlewareStack.add(next => args => {
      args.request.body = '{"other": 1}'
      args.request.headers['content-length'] = '12'
      return next(args)
    }, { step: 'finalizeRequest', priority: 'low' })
    await refused('InvalidSignatureException', 403, altering.send(invoke({ n: 1 })))
  })
})
