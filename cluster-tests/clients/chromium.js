'use strict'
// A headless Chromium, spoken to in the DevTools protocol over its own pipe: messages of JSON that end in a NUL.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { spawn } = require('node:child_process')
const { assert, eventually } = require('./cluster')

const FLAGS = [
  '--headless', '--remote-debugging-pipe', '--disable-gpu', '--disable-quic', '--disable-sync', '--no-first-run',
  '--disable-background-networking', '--disable-component-update',
  // Root and most containers have no sandbox; only pages of our own are opened.
  '--no-sandbox', '--disable-dev-shm-usage'
]

class Chromium {
  static start () {
    const browser = new Chromium()
    browser.profile = fs.mkdtempSync(path.join(os.tmpdir(), 'hearth-chromium-'))
    browser.process = spawn('chromium', [...FLAGS, `--user-data-dir=${browser.profile}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe']
    })
    browser.waiting = new Map()
    let text = ''
    browser.process.stdio[4].on('data', chunk => {
      const messages = (text + chunk).split('\0')
      text = messages.pop()
      for (const message of messages) browser.#hear(JSON.parse(message))
    })
    browser.process.on('error', error => browser.#end(error))
    browser.process.on('exit', code => browser.#end(new Error(`chromium ended with ${code}`)))
    return browser
  }

  /** Opens a page and returns what evaluates an async function, with arguments of JSON, in it. */
  async open (url) {
    const { targetId } = await this.#call('Target.createTarget', { url })
    const { sessionId } = await this.#call('Target.attachToTarget', { targetId, flatten: true })
    const evaluate = async (run, ...values) => {
      const expression = `(${run})(...${JSON.stringify(values)})`
      const { result, exceptionDetails: failed } = await this.#call('Runtime.evaluate',
        { expression, awaitPromise: true, returnByValue: true }, sessionId)
      if (failed) throw new Error(failed.exception?.description ?? failed.text)
      return result.value
    }
    await eventually(async () => assert.equal(await evaluate(() => document.readyState + ' ' + location.href), `complete ${url}`))
    evaluate.sessionId = sessionId
    return evaluate
  }

  /** What a page looks like, as PNG. */
  async screenshot ({ sessionId }) {
    const view = { width: 1280, height: 1000, deviceScaleFactor: 1, mobile: false }
    await this.#call('Emulation.setDeviceMetricsOverride', view, sessionId)
    const { data } = await this.#call('Page.captureScreenshot', { format: 'png' }, sessionId)
    return Buffer.from(data, 'base64')
  }

  async close () {
    const ended = new Promise(resolve => this.process.once('exit', resolve))
    this.process.kill('SIGKILL')
    await ended
    // Its children outlive it by a moment, and may still write there.
    await eventually(async () => fs.rmSync(this.profile, { recursive: true, force: true }))
  }

  #call (method, params, sessionId) {
    const id = this.calls = (this.calls ?? 0) + 1
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject })
      this.process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + '\0')
    })
  }

  #hear ({ id, result, error }) {
    const call = this.waiting.get(id)
    this.waiting.delete(id)
    if (error) call?.reject(new Error(error.message))
    else call?.resolve(result)
  }

  #end (error) {
    for (const { reject } of this.waiting.values()) reject(error)
    this.waiting.clear()
  }
}

module.exports = { Chromium }
