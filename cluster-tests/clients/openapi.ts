// A client that openapi-typescript generated of docs/openapi.json, with openapi-fetch, each call to another node. The compiler has checked
// every path, parameter and body of it before it runs.
// usage: node openapi.js '[{"name": …, "functions": URL, "config": URL}, …]'

import createClient from 'openapi-fetch'
import type { paths } from './schema'

type Node = { name: string, functions: string, events: string, config: string }
const nodes: Node[] = JSON.parse(process.argv[2])
const bearer = process.env.HEARTH_TEST_TOKEN
const headers = bearer === undefined ? undefined : { authorization: `Bearer ${bearer}` }
let turns = 0
const client = (api: 'functions' | 'config') =>
  createClient<paths>({ baseUrl: nodes[turns++ % nodes.length][api].replace(/\/$/, ''), headers })

function check<T> (what: string, found: T, expected: T) {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)]
  if (one !== other) throw new Error(`${what}: ${one}, expected ${other}`)
  console.log(`ok: ${what}`)
}

async function until<T> (what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 10_000
  for (;;) {
    const found = await ask()
    if (found !== undefined) return found
    if (Date.now() > end) throw new Error(`${what}: not within 10 s`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

async function main () {
  const path = { space: 'default' }
  const record = { functionId: 'typed', type: 'http' as const, provider: { url: process.argv[3] } }
  const created = await client('config').POST('/v1/spaces/{space}/functions', { params: { path }, body: record })
  check('a function is registered', [created.response.status, created.data?.functionId], [201, 'typed'])
  const again = await client('config').POST('/v1/spaces/{space}/functions', { params: { path }, body: record })
  check('an error has its type', [again.response.status, typeof again.error?.errors[0].message], [400, 'string'])

  const one = { params: { path: { space: 'default', id: 'typed' } } }
  const read = await until('another node has it', async () => (await client('config').GET('/v1/spaces/{space}/functions/{id}', one)).data)
  check('it is read', [read.functionId, read.type], ['typed', 'http'])
  const invoked = await until('a node calls it', async () =>
    (await client('functions').POST('/invoke', { body: { function_name: 'typed', payload: { n: 1 } } })).data)
  check('it is called', 'result' in invoked && invoked.result, '{"answered":true}')
  const unknown = await client('functions').POST('/invoke', { body: { function_name: 'no-such' } })
  check('an unknown one is told', [unknown.response.status, unknown.error], [404, unknown.error])

  const queued = await client('functions').POST('/invoke', { body: { function_name: 'typed', async: true } })
  check('it is queued', queued.response.status, 202)
  const id = (queued.data as { execution: string }).execution
  const ended = await until('it ends', async () => {
    const { data } = await client('functions').GET('/v1/spaces/{space}/executions/{id}', { params: { path: { space: 'default', id } } })
    return data?.endedAtMs == null ? undefined : data
  })
  check('its execution succeeded', ended.status, 'succeeded')

  const cluster = await client('config').GET('/v1/cluster')
  check('the cluster has its nodes', cluster.data?.nodes.map(node => node.name), nodes.map(node => node.name))
  const deleted = await client('config').DELETE('/v1/spaces/{space}/functions/{id}', one)
  check('it is removed', deleted.response.status, 204)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
