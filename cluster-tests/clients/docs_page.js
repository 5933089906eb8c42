'use strict'
// The page of the APIs in a browser, as a person uses it: sign up and log in, authorize, call a function. And a page of another origin.
// usage: node docs_page.js '[{"name": …, "functions": URL, "config": URL}, …]'; HEARTH_TEST_SCREENSHOT=FILE keeps a picture.

const fs = require('node:fs')
const http = require('node:http')
const { Chromium } = require('./chromium')
const { assert, nodes, step, eventually, startWebhook, main } = require('./cluster')

/** Runs in the page: opens an operation, fills its body, executes it. */
function execute (operation, body) {
  const block = document.getElementById(operation)
  if (!block.classList.contains('is-open')) block.querySelector('.opblock-summary-control').click()
  return new Promise((resolve, reject) => {
    const end = Date.now() + 10000
    const tick = () => {
      const field = block.querySelector('textarea.body-param__text')
      const button = block.querySelector('button.execute')
      if (button && (field || body === null)) {
        if (field && body !== null) {
          Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, body)
          field.dispatchEvent(new Event('input', { bubbles: true }))
          field.dispatchEvent(new Event('change', { bubbles: true }))
        }
        // What was filled in is the page's own when it has drawn it.
        requestAnimationFrame(() => requestAnimationFrame(() => { button.click(); resolve() }))
      } else if (Date.now() > end) reject(new Error('the operation does not open'))
      else setTimeout(tick, 50)
    }
    tick()
  })
}

/** Runs in the page: the status and the body that it shows of an answer. */
function shown (operation) {
  const live = document.getElementById(operation).querySelector('.live-responses-table .response')
  if (!live) return null
  const status = live.querySelector('.response-col_status').textContent.trim()
  const body = live.querySelector('.response-col_description .highlight-code, .response-col_description pre')
  return { status: parseInt(status), body: body ? body.textContent : '' }
}

main(async () => {
  const hook = await startWebhook(() => ({ body: { greeting: 'hello from a page' } }))
  const [first] = nodes
  const base = first.functions.replace(/\/$/, '')
  const record = { functionId: 'greet', type: 'http', provider: { url: hook.url } }
  const made = await fetch(`${first.config}/v1/spaces/default/functions`, { method: 'POST', body: JSON.stringify(record) })
  assert.equal(made.status, 201)

  const browser = Chromium.start()
  try {
    const page = await browser.open(`${base}/docs/`)
    const call = async (operation, body) => {
      await page(execute, operation, body)
      return await eventually(async () => {
        const answer = await page(shown, operation)
        assert.ok(answer)
        return answer
      })
    }
    await step('the page lists the operations', () => eventually(async () => {
      const operations = await page(() => document.querySelectorAll('.opblock').length)
      assert.ok(operations > 60, `${operations}`)
    }))
    const credentials = JSON.stringify({ email: 'page@example.com', password: 'password123' })
    await step('it signs up', async () => assert.equal((await call('operations-users-sign_up', credentials)).status, 201))
    let token
    await step('it logs in', async () => {
      const { status, body } = await call('operations-users-login', credentials)
      assert.equal(status, 201, body)
      token = /"token":\s*"([^"]+)"/.exec(body)[1]
    })
    await step('who is not authorized is told', async () =>
      assert.equal((await call('operations-users-read_me', null)).status, 401))
    await step('the Authorize button takes the token', async () => {
      await page(() => document.querySelector('.auth-wrapper .authorize').click())
      await eventually(async () => assert.ok(await page(() => !!document.querySelector('.auth-container input'))))
      await page(token => {
        const field = document.querySelector('.auth-container input')
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, token)
        field.dispatchEvent(new Event('input', { bubbles: true }))
        field.dispatchEvent(new Event('change', { bubbles: true }))
      }, token)
      await page(() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve))))
      await page(() => document.querySelector('.auth-btn-wrapper .authorize').click())
      await page(() => document.querySelector('.auth-btn-wrapper .btn-done').click())
    })
    await step('it says who the caller is', () => eventually(async () => {
      const { status, body } = await call('operations-users-read_me', null)
      assert.equal(status, 200, body)
      assert.match(body, /page@example\.com/)
    }))
    await step('it calls a function', async () => {
      const { status, body } = await call('operations-functions-invoke', JSON.stringify({ function_name: 'greet', payload: {} }))
      assert.equal(status, 200, body)
      assert.match(body, /hello from a page/)
    })
    await step('it reads the cluster at the other port', async () => {
      const { status, body } = await call('operations-config-show_cluster', null)
      assert.equal(status, 200, body)
      assert.match(body, /"n3"/)
    })
    if (process.env.HEARTH_TEST_SCREENSHOT) {
      await page(() => document.querySelector('#operations-functions-invoke .live-responses-table').scrollIntoView({ block: 'center' }))
      fs.writeFileSync(process.env.HEARTH_TEST_SCREENSHOT, await browser.screenshot(page))
    }
    await step('a page of another origin can not register a function', async () => {
      const server = http.createServer((_, response) => {
        response.writeHead(200, { 'content-type': 'text/html' })
        response.end('<title>elsewhere</title>')
      })
      await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
      server.unref()
      const elsewhere = await browser.open(`http://127.0.0.1:${server.address().port}/`)
      const url = `${first.config}/v1/spaces/default/functions`
      const tried = await elsewhere(async (url, body) => {
        // No preflight is made for this one: it reaches the node.
        const plain = await fetch(url, { method: 'POST', mode: 'no-cors', body }).then(response => response.type, error => `${error}`)
        const typed = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body }).then(response => response.status, error => error.name)
        return [plain, typed]
      }, url, JSON.stringify({ functionId: 'evil', type: 'process', provider: { command: ['id'] } }))
      assert.deepEqual(tried, ['opaque', 'TypeError'])
      assert.equal((await fetch(`${url}/evil`)).status, 404)
    })
  } finally {
    await browser.close()
  }
})
