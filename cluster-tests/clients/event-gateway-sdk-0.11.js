'use strict'
// Every method of @serverless/event-gateway-sdk 0.11.0 but those of connections, which were another server's, each call to another
// node than the one before.
// usage: node event-gateway-sdk-0.11.js '[{"name": …, "events": URL, "config": URL}, …]'

const SDK = require('event-gateway-sdk-0.11')
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

/** Waits until a list is so on every node. */
async function listed (list, expected) {
  for (const _ of nodes) await eventually(async () => assert.deepEqual(await list(gateway()), expected))
}

const subscriptionId = text => Buffer.from(text).toString('base64url')

main(async () => {
  const hook = await startWebhook(event => event.data?.fail
    ? { status: 500, body: {} }
    : { body: { statusCode: 201, headers: { 'x-by': 'hook' }, body: `${event.eventType} ${event.data?.name}` } })
  const record = { functionId: 'hook', type: 'http', provider: { url: hook.url } }
  const team = { metadata: { team: 'users' } }

  await step('functions are created, updated and listed', async () => {
    const stored = { space: 'default', ...record }
    assert.deepEqual(await gateway().createFunction(record), stored)
    assert.deepEqual(await gateway().updateFunction({ ...record, ...team }), { ...stored, ...team })
    await refused(gateway().createFunction(record),
      'Failed to create the function hook due the error: Function "hook" already registered.')
    await refused(gateway().updateFunction({ ...record, functionId: 'nobody' }),
      'Failed to update the function nobody due the error: Function "nobody" not found.')
    await listed(gateway => gateway.listFunctions(), [{ ...stored, ...team }])
    await listed(gateway => gateway.listFunctions({ 'metadata.team': 'users' }), [{ ...stored, ...team }])
    await listed(gateway => gateway.listFunctions({ 'metadata.team': 'other' }), [])
  })

  await step('event types are created, updated and listed', async () => {
    const stored = { space: 'default', name: 'user.created' }
    assert.deepEqual(await gateway().createEventType({ name: 'user.created' }), stored)
    assert.deepEqual(await gateway().updateEventType({ name: 'user.created', ...team }), { ...stored, ...team })
    assert.equal((await gateway().createEventType({ name: 'http.request' })).name, 'http.request')
    await refused(gateway().createEventType({ name: 'user.created' }),
      'Failed to create user.created event type due the error: Event Type "user.created" already exists.')
    await refused(gateway().updateEventType({ name: 'nothing' }),
      'Failed to update nothing event type due the error: Event Type "nothing" not found.')
    await listed(gateway => gateway.listEventTypes({ 'metadata.team': 'users' }), [{ ...stored, ...team }])
  })

  const waits = { type: 'sync', eventType: 'user.created', functionId: 'hook', path: '/wait' }
  const queued = { type: 'async', eventType: 'user.created', functionId: 'hook' }
  const page = { type: 'sync', eventType: 'http.request', functionId: 'hook', method: 'GET', path: '/users/:name' }
  const ids = [
    'sync,user.created,%2Fwait,POST', 'async,user.created,hook,%2F,POST', 'sync,http.request,%2Fusers%2F:name,GET'
  ].map(subscriptionId)
  await step('subscriptions are made and listed', async () => {
    assert.deepEqual(await gateway().subscribe(waits),
      { space: 'default', subscriptionId: ids[0], ...waits, method: 'POST' })
    assert.deepEqual(await gateway().subscribe(queued),
      { space: 'default', subscriptionId: ids[1], ...queued, method: 'POST', path: '/' })
    assert.equal((await gateway().subscribe(page)).subscriptionId, ids[2])
    const failed = (event, id) => `Failed to subscribe the event ${event} to the function ${id} due the error: `
    await refused(gateway().subscribe(waits), `${failed('user.created', 'hook')}Subscription "${ids[0]}" already exists.`)
    await refused(gateway().subscribe({ ...queued, eventType: 'nothing' }),
      `${failed('nothing', 'hook')}Event Type "nothing" not found.`)
    await refused(gateway().subscribe({ ...queued, functionId: 'nobody' }),
      `${failed('user.created', 'nobody')}Function "nobody" not found.`)
    for (const _ of nodes) {
      await eventually(async () => {
        const all = await gateway().listSubscriptions()
        assert.deepEqual(all.map(one => one.subscriptionId).sort(), [...ids].sort())
      })
    }
  })

  const event = (id, data) => ({
    eventID: id, eventType: 'user.created', cloudEventsVersion: '0.1', source: '/services/users', contentType: 'application/json', data
  })
  await step('emit through every node reaches an async subscriber, as it was', async () => {
    for (const [place, { name }] of nodes.entries()) {
      const response = await gateway().emit(event(name, { name }))
      assert.deepEqual([response.status, await response.text()], [202, ''])
      await eventually(async () => assert.equal(hook.got.length, place + 1))
      const { eventID, eventType, cloudEventsVersion, source, contentType, data } = hook.got[place]
      assert.deepEqual({ eventID, eventType, cloudEventsVersion, source, contentType, data }, event(name, { name }))
    }
  })
  await step('emit through every node is answered by a sync subscriber', async () => {
    for (const { name } of nodes) {
      const response = await gateway().emit(event('1', { name }), { path: 'wait' })
      assert.deepEqual([response.status, response.headers.get('x-by'), await response.text()], [201, 'hook', `user.created ${name}`])
    }
  })
  await step('emit tells why not', async () => {
    await refused(gateway().emit(event('1', { fail: true }), { path: '/wait' }),
      'Failed to emit the event user.created due the error: Function call failed. Please check logs.')
    await refused(gateway().emit({ ...event('1', {}), source: undefined }),
      "Failed to emit the event user.created due the error: CloudEvent doesn't validate: " +
      "Key: 'Event.Source' Error:Field validation for 'Source' failed on the 'required' tag")
  })
  await step('a plain request is answered by every node', async () => {
    for (const { events } of nodes) {
      const response = await fetch(`${events}/users/Ada`)
      assert.deepEqual([response.status, await response.text()], [201, 'http.request undefined'])
      assert.deepEqual(hook.got.at(-1).data.params, { name: 'Ada' })
    }
  })

  await step('CORS configurations are created, updated, listed, obeyed and deleted', async () => {
    const cors = { method: 'GET', path: '/users/:name', allowedOrigins: ['http://a.example'] }
    const stored = {
      space: 'default',
      corsId: 'GET%2Fusers%2F:name',
      ...cors,
      allowedMethods: ['HEAD', 'GET', 'POST'],
      allowedHeaders: ['Origin', 'Accept', 'Content-Type'],
      allowCredentials: false
    }
    assert.deepEqual(await gateway().createCORS(cors), stored)
    const updated = { ...stored, allowedOrigins: ['http://b.example'] }
    assert.deepEqual(await gateway().updateCORS(updated), updated)
    await listed(gateway => gateway.listCORS(), [updated])
    for (const { events } of nodes) {
      for (const origin of ['http://a.example', 'http://b.example']) {
        const response = await fetch(`${events}/users/Ada`, { headers: { origin } })
        const expected = origin === 'http://b.example' ? origin : null
        assert.equal(response.headers.get('access-control-allow-origin'), expected)
      }
    }
    assert.equal(await gateway().deleteCORS(stored), undefined)
    await refused(gateway().deleteCORS(stored),
      `Failed to delete ${stored.corsId} CORS configuration due the error: CORS configuration "${stored.corsId}" not found.`)
  })

  await step('what is in use is not deleted', async () => {
    await refused(gateway().deleteFunction({ functionId: 'hook' }),
      "Failed to delete the function hook due the error: Function cannot be deleted because it's subscribed to a least one event.")
    await assert.rejects(gateway().deleteEventType({ name: 'user.created' }),
      /^Error: Failed to delete user.created event type due the error: Event type cannot be deleted/)
  })
  await step('all of it is deleted', async () => {
    for (const subscriptionId of ids) {
      assert.equal(await gateway().unsubscribe({ subscriptionId }), undefined)
      await refused(gateway().unsubscribe({ subscriptionId }),
        `Failed to unsubscribe the subscription ${subscriptionId} due the error: Subscription "${subscriptionId}" not found.`)
    }
    for (const name of ['user.created', 'http.request']) {
      assert.equal(await gateway().deleteEventType({ name }), undefined)
    }
    assert.equal(await gateway().deleteFunction({ functionId: 'hook' }), undefined)
    await listed(gateway => gateway.listSubscriptions(), [])
    await listed(gateway => gateway.listEventTypes(), [])
    await listed(gateway => gateway.listFunctions(), [])
    await listed(gateway => gateway.listCORS(), [])
  })
})
