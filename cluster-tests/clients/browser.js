'use strict'
// Pages in a browser that call the events API of nodes, which are of another origin: what they may read, and what runs.
// usage: node browser.js '[{"name": …, "events": URL, "config": URL}, …]'

const http = require('node:http')
const { Chromium } = require('./chromium')
const { assert, nodes, nextNode, step, eventually, startWebhook, main } = require('./cluster')

/** A server of one empty page, so an origin. */
async function startOrigin () {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' })
    response.end('<title>page</title>')
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}`
}

async function create (kind, record) {
  const url = `${nextNode().config}/v1/spaces/default/${kind}`
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(record) })
  assert.equal(response.status, 201, await response.text())
}

/** Runs in the page: what it can read of an answer, or `blocked`. */
async function request (url, options) {
  try {
    const response = await fetch(url, options)
    return `${response.status} ${await response.text()}`
  } catch (error) {
    return error instanceof TypeError ? 'blocked' : `${error}`
  }
}

main(async () => {
  const hook = await startWebhook(event => event.data.query?.fail ? { status: 500 } : { body: { body: `ran ${event.data.method}` } })
  const [friend, stranger] = [await startOrigin(), await startOrigin()]
  const cors = { origins: [friend], methods: ['GET', 'PUT'], headers: ['Content-Type', 'X-Mine'], allowCredentials: true }
  await create('functions', { functionId: 'hook', type: 'http', provider: { url: hook.url } })
  for (const method of ['GET', 'PUT', 'POST']) {
    await create('subscriptions', { event: 'http', functionId: 'hook', method, path: '/strict', cors })
  }
  await create('subscriptions', { event: 'http', functionId: 'hook', method: 'GET', path: '/open', cors: {} })
  await create('subscriptions', { event: 'http', functionId: 'hook', method: 'PUT', path: '/none' })
  for (const { config } of nodes) {
    await eventually(async () => {
      const list = await (await fetch(`${config}/v1/spaces/default/subscriptions`)).json()
      assert.equal(list.subscriptions.length, 5)
    })
  }

  const browser = Chromium.start()
  try {
    const pages = { friend: await browser.open(`${friend}/`), stranger: await browser.open(`${stranger}/`) }
    const json = { 'content-type': 'application/json', 'x-mine': '1' }
    const put = { method: 'PUT', headers: json, body: '{}' }
    const include = { credentials: 'include' }
    const failed = JSON.stringify({ errors: [{ message: 'Function call failed. Please check logs.' }] })
    for (const [what, page, path, options, read, ran] of [
      ['a preflight allows method, headers and credentials', 'friend', '/strict', { ...put, ...include }, '200 ran PUT', ['PUT']],
      ['a request without preflight is read', 'friend', '/strict', include, '200 ran GET', ['GET']],
      ['another origin is refused before anything runs', 'stranger', '/strict', put, 'blocked', []],
      ['without preflight it runs, and another origin reads nothing', 'stranger', '/strict', {}, 'blocked', ['GET']],
      ['a header that is not listed is refused', 'friend', '/strict', { headers: { 'x-other': '1' } }, 'blocked', []],
      ['a method that is not listed is refused', 'friend', '/strict', { method: 'POST', headers: json, body: '{}' }, 'blocked', []],
      ['a method that nobody subscribed to is refused', 'friend', '/strict', { method: 'DELETE' }, 'blocked', []],
      ['the defaults are for any origin', 'stranger', '/open', {}, '200 ran GET', ['GET']],
      ['the defaults are without credentials', 'stranger', '/open', include, 'blocked', ['GET']],
      ['without rules the function gets the preflight, and the page nothing', 'friend', '/none', put, 'blocked', ['OPTIONS']],
      ['a failure is read as well', 'friend', '/strict?fail=1', put, `500 ${failed}\n`, ['PUT']],
      ['any page emits custom events', 'stranger', '/', { method: 'POST', headers: { event: 'page.left', ...json }, body: '{}', ...include }, '202 ', []]
    ]) {
      await step(what, async () => {
        for (const { events } of nodes) {
          hook.got.length = 0
          assert.equal(await pages[page](request, events + path, options), read)
          assert.deepEqual(hook.got.map(event => event.data.method), ran)
        }
      })
    }
  } finally {
    await browser.close()
  }
})
