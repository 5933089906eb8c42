'use strict'
// Every method of @serverless/event-gateway-sdk 0.3.0, each call to another node than the one before.
// usage: node event-gateway-sdk-0.3.js '[{"name": …, "events": URL, "config": URL}, …]'

const SDK = require('event-gateway-sdk-0.3')
const { assert, nodes, nextNode, step, eventually, startWebhook, main } = require('./cluster')

/** The SDK, speaking to the next node. */
function gateway (space = 'default') {
  const { events, config } = nextNode()
  return new SDK({ url: events, configurationUrl: config, space })
}

const refused = (call, message) => assert.rejects(call, error => {
  assert.equal(error.message, message)
  return true
})

const byId = (one, other) => one.subscriptionId < other.subscriptionId ? -1 : 1

main(async () => {
  const hook = await startWebhook(event => event.data?.fail
    ? { status: 500, body: {} }
    : { body: event.event === 'http'
        ? { statusCode: 201, headers: { 'x-by': 'hook' }, body: `${event.data.method} ${event.data.params.id}` }
        : { echo: event } })
  const record = { functionId: 'hook', type: 'http', provider: { url: hook.url } }
  const stored = { space: 'default', ...record }

  await step('registerFunction answers with the record', async () => {
    assert.deepEqual(await gateway().registerFunction(record), stored)
    assert.deepEqual(await gateway('shop').registerFunction(record), { ...stored, space: 'shop' })
  })
  await step('registerFunction tells why not', async () => {
    const failed = 'Failed to register the function hook due the error: '
    await refused(gateway().registerFunction(record), `${failed}Function "hook" already registered.`)
    await refused(gateway().registerFunction({ ...record, provider: {} }),
      `${failed}Function doesn't validate. Validation error: missing required fields for HTTP endpoint`)
  })
  await step('listFunctions lists those of the space, through every node', async () => {
    for (const _ of nodes) {
      await eventually(async () => assert.deepEqual(await gateway().listFunctions(), [stored]))
      assert.deepEqual(await gateway('empty').listFunctions(), [])
    }
  })

  const custom = { event: 'user.created', functionId: 'hook' }
  const invoked = { event: 'invoke', functionId: 'hook' }
  const page = { event: 'http', functionId: 'hook', method: 'GET', path: 'users/:id', cors: {} }
  const records = [
    {
      space: 'default',
      subscriptionId: 'http,GET,%2Fusers%2F:id',
      ...page,
      path: '/users/:id',
      cors: { origins: ['*'], methods: ['HEAD', 'GET', 'POST'], headers: ['Origin', 'Accept', 'Content-Type'], allowCredentials: false }
    },
    { space: 'default', subscriptionId: 'invoke,hook,%2F', ...invoked, path: '/' },
    { space: 'default', subscriptionId: 'user.created,hook,%2F', ...custom, path: '/' }
  ]
  await step('subscribe answers with the record', async () => {
    for (const [place, subscription] of [page, invoked, custom].entries()) {
      assert.deepEqual(await gateway().subscribe(subscription), records[place])
    }
  })
  await step('subscribe tells why not', async () => {
    const failed = (event, id) => `Failed to subscribe the event ${event} to the function ${id} due the error: `
    await refused(gateway().subscribe(custom),
      `${failed('user.created', 'hook')}Subscription "user.created,hook,%2F" already exists.`)
    await refused(gateway().subscribe({ ...custom, functionId: 'nobody' }),
      `${failed('user.created', 'nobody')}Function "nobody" not found.`)
    await refused(gateway().subscribe({ event: 'http', functionId: 'hook', method: 'GET', path: '/users/me' }),
      `${failed('http', 'hook')}Subscription path conflict: parameter with different name ("id") already defined: for route: /users/me`)
  })
  await step('listSubscriptions lists those of the space, through every node', async () => {
    for (const _ of nodes) {
      await eventually(async () => assert.deepEqual((await gateway().listSubscriptions()).sort(byId), records))
      assert.deepEqual(await gateway('shop').listSubscriptions(), [])
    }
  })

  await step('emit through every node reaches the subscriber, in the envelope', async () => {
    for (const [place, sent] of [
      { event: 'user.created', data: { name: 'Ada', place: 1.5 } },
      { event: 'user.created', data: '<b>Ada</b>', dataType: 'text/html' },
      { event: 'user.created', data: null }
    ].entries()) {
      const response = await gateway().emit(sent)
      assert.equal(response.status, 202)
      assert.equal(await response.text(), '')
      await eventually(async () => assert.equal(hook.got.length, place + 1))
      const { id, receivedAt, ...rest } = hook.got[place]
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.ok(Number.isInteger(receivedAt) && Math.abs(Date.now() - receivedAt) < 60_000, `${receivedAt}`)
      const data = sent.dataType ? Buffer.from(sent.data).toString('base64') : sent.data
      assert.deepEqual(rest, { event: 'user.created', data, dataType: sent.dataType || 'application/json' })
    }
  })
  await step('emit of what nobody subscribed to is accepted all the same', async () => {
    assert.equal((await gateway().emit({ event: 'user.deleted', data: {} })).status, 202)
  })
  await step('emit tells that it failed', () =>
    refused(gateway().emit({ event: 'user.created', data: '{', dataType: 'application/json' }),
      'Failed to emit the event user.created'))

  await step('invoke through every node answers with what the function said', async () => {
    for (const _ of nodes) {
      const response = await gateway().invoke({ functionId: 'hook', data: { n: 1 } })
      const { echo } = await response.json()
      assert.deepEqual([echo.event, echo.data, echo.dataType], ['invoke', { n: 1 }, 'application/json'])
    }
  })
  await step('invoke tells why not', async () => {
    const failed = id => `Failed to invoke function ${id} due the error: `
    const unknown = 'function or subscription not found'
    await refused(gateway().invoke({ functionId: 'nobody', data: {} }), `${failed('nobody')}${unknown}`)
    await refused(gateway('shop').invoke({ functionId: 'hook', data: {} }), `${failed('hook')}${unknown}`)
    await refused(gateway().invoke({ functionId: 'hook', data: { fail: true } }),
      `${failed('hook')}Function call failed. Please check logs.`)
  })
  await step('an http event is answered by every node', async () => {
    for (const { events } of nodes) {
      const response = await fetch(`${events}/users/7?x=1`, { headers: { origin: 'http://a.example' } })
      assert.deepEqual([response.status, response.headers.get('x-by'), await response.text()], [201, 'hook', 'GET 7'])
      assert.equal(response.headers.get('access-control-allow-origin'), '*')
    }
  })

  await step('deleteFunction tells why not', async () => {
    const failed = id => `Failed to delete the function ${id} due the error: `
    await refused(gateway().deleteFunction({ functionId: 'hook' }),
      `${failed('hook')}Function cannot be deleted because it's subscribed to a least one event.`)
    await refused(gateway().deleteFunction({ functionId: 'nobody' }), `${failed('nobody')}Function "nobody" not found.`)
  })
  await step('unsubscribe and deleteFunction take away what was made', async () => {
    for (const { subscriptionId } of records) {
      assert.equal(await gateway().unsubscribe({ subscriptionId }), undefined)
      await refused(gateway().unsubscribe({ subscriptionId }),
        `Failed to unsubscribe the subscription ${subscriptionId} due the error: Subscription "${subscriptionId}" not found.`)
    }
    for (const space of ['default', 'shop']) {
      assert.equal(await gateway(space).deleteFunction({ functionId: 'hook' }), undefined)
    }
    for (const _ of nodes) {
      await eventually(async () => assert.deepEqual(await gateway().listSubscriptions(), []))
      await eventually(async () => assert.deepEqual(await gateway('shop').listFunctions(), []))
    }
  })
  await step('what was taken away is gone on every node', async () => {
    for (const { events } of nodes) {
      await eventually(async () => assert.equal((await fetch(`${events}/users/7`)).status, 404))
    }
  })
})
