// A bare Node server that does the same work: bearer checked, body validated, bucket by SHA-256, exposure queued.
const http = require('node:http')
const { createHash } = require('node:crypto')

const [port, key] = process.argv.slice(2)
const hashOf = (text) => createHash('sha256').update(text).digest('hex')
const known = new Map([[hashOf(key), { tenant: 'default', scopes: new Set(['evaluate:experimentation']) }]])
const { experiment, variations, served } = JSON.parse(process.env.BENCH_EXPERIMENT)
let queue = []
setInterval(() => { queue = [] }, 30)

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
  const { createHmac } = require('node:crypto')
  const digest = createHmac('sha256', key).update(`s1.${experiment}.${device}`).digest('base64url').slice(0, 22)
  const text = `a1.${experiment}.${variation.context.variation_id}...${digest}.${Math.floor(Date.now() / 1000)}`
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`
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
  queue.push({ at: Date.now(), device, variation, request: asked.request })
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
