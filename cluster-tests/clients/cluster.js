'use strict'
// What the client programs share: the nodes in turn, steps that are told, and a webhook of their own.

const assert = require('node:assert/strict')
const http = require('node:http')

/** How soon what one node was told is so on the others, and an event has come, on a machine that is busy with other tests. */
const BOUND_MS = 10_000

/** The nodes as the test hands them over: [{name, events, config}]. */
const nodes = JSON.parse(process.argv[2])

let turns = 0
/** Another node with each call. */
const nextNode = () => nodes[turns++ % nodes.length]

/** Runs one step and tells that it held. */
async function step (what, run) {
  try {
    await run()
  } catch (error) {
    error.message = `${what}: ${error.message}`
    throw error
  }
  console.log(`ok: ${what}`)
}

/** Tries again until an assertion holds. */
async function eventually (check) {
  const end = Date.now() + BOUND_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > end) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}

/** A webhook that keeps what it was sent, parsed, and answers with what `answer` makes of it. */
async function startWebhook (answer) {
  const got = []
  const server = http.createServer((request, response) => {
    const chunks = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const event = JSON.parse(Buffer.concat(chunks).toString())
      got.push(event)
      const { status = 200, body } = answer(event)
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(body))
    })
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  server.unref()
  return { url: `http://127.0.0.1:${server.address().port}/`, got }
}

/** Runs a program to its end; whatever it throws is its failure. */
function main (program) {
  program().then(
    () => process.exit(0),
    error => {
      console.error(error)
      process.exit(1)
    }
  )
}

module.exports = { assert, nodes, nextNode, step, eventually, startWebhook, main }
