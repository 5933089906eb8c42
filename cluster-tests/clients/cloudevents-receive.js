'use strict'
// Webhooks that get CloudEvents, binary and structured, and read them with npm's cloudevents, which refuses what is none.
// usage: node cloudevents-receive.js '[{"name": …, "events": URL, "config": URL}, …]'

const http = require('node:http')
const { HTTP } = require('cloudevents')
const { assert, nodes, nextNode, step, eventually, main } = require('./cluster')

/** A webhook that answers with the event as the library reads it. */
async function startReceiver (got) {
  const server = http.createServer((request, response) => {
    const chunks = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const event = HTTP.toEvent({ headers: request.headers, body: Buffer.concat(chunks).toString() })
      event.validate()
      got.push(event.toJSON())
      response.writeHead(200, { 'content-type': 'text/plain' })
      response.end(event.type)
    })
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}/`
}

async function create (kind, record) {
  const url = `${nextNode().config}/v1/spaces/default/${kind}`
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(record) })
  assert.equal(response.status, 201, await response.text())
}

main(async () => {
  for (const format of ['binary', 'structured']) {
    const got = []
    const path = `/${format}`
    await create('functions', {
      functionId: format, type: 'http', provider: { url: await startReceiver(got) }, eventFormat: `cloudevents-${format}`
    })
    await create('subscriptions', { event: 'order.paid', functionId: format, path })
    await create('subscriptions', { event: 'http', functionId: format, path, method: 'POST' })

    await step(`an emitted event comes as a ${format} CloudEvent`, async () => {
      for (const [place, { events, config }] of nodes.entries()) {
        await eventually(async () => {
          const list = await (await fetch(`${config}/v1/spaces/default/subscriptions`)).json()
          assert.ok(list.subscriptions.filter(one => one.path === path).length === 2)
        })
        const headers = { event: 'order.paid', 'content-type': 'application/json' }
        const response = await fetch(`${events}${path}`, { method: 'POST', headers, body: '{"total":12.50}' })
        assert.equal(response.status, 202)
        await eventually(async () => assert.equal(got.length, place + 1))
        const { specversion, type, id, source, data, time } = got[place]
        assert.deepEqual({ specversion, type, data }, { specversion: '1.0', type: 'order.paid', data: { total: 12.5 } })
        assert.ok(id && source && !Number.isNaN(Date.parse(time)), JSON.stringify(got[place]))
      }
    })
    got.length = 0
    await step(`an http event comes as a ${format} CloudEvent, and the function's own answer goes back`, async () => {
      for (const { events } of nodes) {
        const response = await fetch(`${events}${path}?x=1`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '[1]' })
        assert.deepEqual([response.status, await response.text()], [200, 'http'])
        const { body, query, method } = got.pop().data
        assert.deepEqual({ body, query, method }, { body: [1], query: { x: ['1'] }, method: 'POST' })
      }
    })
  }
})
