// A bare Node server that does the same work: bearer checked, body validated, bucket by SHA-256, token signed, exposure
// queued and stored in groups.
const http = require('node:http')
const { createHash, createHmac } = require('node:crypto')
const { DatabaseSync } = require('node:sqlite')

const [port, key, file] = process.argv.slice(2)
const hashOf = (text) => createHash('sha256').update(text).digest('hex')
const known = new Map([[hashOf(key), { tenant: 'default', scopes: new Set(['evaluate:experimentation']) }]])
const { experiment, variations, served } = JSON.parse(process.env.BENCH_EXPERIMENT)

const database = new DatabaseSync(file)
database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE groups (id INTEGER PRIMARY KEY, body BLOB)')
const insert = database.prepare('INSERT INTO groups (body) VALUES (?)')
let queue = []
setInterval(() => {
  if (queue.length > 0) insert.run(JSON.stringify(queue))
  queue = []
}, 30)

function refuse (response, status) {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify({ statusCode: status }))
}

function assign (device) {
  const digest = createHash('sha256').update(`${experiment}:${device}`).digest()
  const position = Number((digest.readBigUInt64BE(0) * 10000n) >> 64n)
  return variations[position < variations[0].weight * 100 ? 0 : 1]
}

function token (variation, device) {
  const text = `a2.${experiment}.${variation.context.variation_id}...${Math.floor(Date.now() / 1000)}`
  const mac = createHmac('sha256', key).update(`${text}.${device}`).digest('hex').slice(0, 32)
  return `${text}.${mac}`
}

function answer (request, response, raw) {
  const bearer = request.headers.authorization ?? ''
  const principal = bearer.startsWith('Bearer ') ? known.get(hashOf(bearer.slice(7))) : undefined
  if (principal === undefined) return refuse(response, 401)
  if (!principal.scopes.has('evaluate:experimentation')) return refuse(response, 403)
  let asked
  try { asked = JSON.parse(raw) } catch { return refuse(response, 400) }
  const isOfrep = request.url.startsWith('/ofrep/')
  const device = isOfrep ? asked.context?.targetingKey : asked.subjects?.device
  if (typeof device !== 'string' || device.length > 256) return refuse(response, 400)
  if (!isOfrep && typeof asked.flow !== 'string') return refuse(response, 400)
  const variation = assign(device)
  const { user_agent: agent, ip, ...attributes } = (isOfrep ? asked.context : asked.request) ?? {}
  queue.push({ at: Date.now(), device, variation: variation.context.variation_id, attributes })
  const body = Buffer.from(JSON.stringify(isOfrep
    ? { key: variation.key, value: variation.value, reason: 'SPLIT', variant: variation.name, metadata: variation.metadata }
    : {
        experiment: variation.context, reason: 'split', variation_name: variation.name, segment_id: null,
        assignment_token: token(variation, device), served, warnings: []
      }))
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store', 'content-length': body.length })
  response.end(body)
}

http.createServer((request, response) => {
  if (request.method !== 'POST') return refuse(response, 405)
  let raw = ''
  request.setEncoding('utf8')
  request.on('data', (piece) => { raw += piece })
  request.on('end', () => answer(request, response, raw))
}).listen(Number(port), '127.0.0.1')
