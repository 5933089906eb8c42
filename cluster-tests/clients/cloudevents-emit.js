'use strict'
// Emits CloudEvents with npm's cloudevents in binary and structured mode and as a batch, each through another node.
// Writes a line `emitted JSON` for each: the event as its receiver should see it.
// usage: node cloudevents-emit.js '[{"name": …, "events": URL, "config": URL}, …]'

const { CloudEvent, Mode, emitterFor } = require('cloudevents')
const { assert, nextNode, main } = require('./cluster')

/** Content type and data: of JSON, of text, of bytes, and none at all. */
const DATA = [
  ['application/json', { name: 'Ada', at: [1, 2.5, null] }],
  ['text/plain', 'Grüße'],
  ['application/octet-stream', new Uint8Array([0, 255, 254])],
  [undefined, undefined]
]

async function transport ({ headers, body }) {
  const response = await fetch(`${nextNode().events}/`, { method: 'POST', headers, body })
  assert.equal(response.status, 202, await response.text())
}

/** What the receiver writes of it: text and bytes are told as bytes. */
function seen (event) {
  const { data, data_base64: base64, ...attributes } = event.toJSON()
  if (base64) return { ...attributes, data: { base64 } }
  const isText = typeof data === 'string'
  return { ...attributes, data: isText ? { base64: Buffer.from(data).toString('base64') } : data ?? null }
}

const events = DATA.map(([datacontenttype, data]) => () =>
  new CloudEvent({ type: 'com.example.javascript', source: '/javascript', subject: 'orders/7', region: 'eu', datacontenttype, data }))

main(async () => {
  const emitted = []
  for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
    const emit = emitterFor(transport, { mode })
    for (const make of events) {
      const event = make()
      await emit(event)
      emitted.push(event)
    }
  }
  // The library reads batches and writes none: this is one of its events.
  const batch = events.map(make => make())
  await transport({
    headers: { 'content-type': 'application/cloudevents-batch+json' },
    body: JSON.stringify(batch)
  })
  for (const event of [...emitted, ...batch]) console.log('emitted', JSON.stringify(seen(event)))
})
