// Several bittorrent-dht nodes in one process, driven by JSON lines over TCP as dht_lt.py is.
// Arguments: the folder that has node_modules, control port, bootstrap, ADDRESS:PORT…

import crypto from 'node:crypto'
import net from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [home, control, bootstrap, ...listen] = process.argv.slice(2)
const { default: DHT } = await import(pathToFileURL(path.join(home, 'node_modules/bittorrent-dht/index.js')))

// A raw key in the wrapping that node's crypto takes.
const spki = Buffer.from('302a300506032b6570032100', 'hex')
const verify = (signature, message, key) => {
  const wrapped = crypto.createPublicKey({ key: Buffer.concat([spki, key]), format: 'der', type: 'spki' })
  return crypto.verify(null, message, wrapped, signature)
}
const { publicKey, privateKey } = crypto.generateKeyPairSync('ed25519')
const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)

const nodes = listen.map((addr) => {
  const [ip, port] = addr.split(':')
  const dht = new DHT({ bootstrap: [bootstrap], verify })
  dht.listen(Number(port), ip)
  dht.on('error', (error) => console.error(error))
  return dht
})

const salted = (order) => (order.salt ? { salt: Buffer.from(order.salt) } : {})

function act (dht, order, answer) {
  if (order.do === 'nodes') return answer({ nodes: dht.nodes.count() })
  if (order.do === 'put') {
    const value = { v: Buffer.from(order.value), ...salted(order) }
    if (order.mutable) Object.assign(value, { k: raw, seq: 1, sign: (m) => crypto.sign(null, m, privateKey) })
    return dht.put(value, (error, hash, stored) => {
      if (error) return answer({ error: String(error) })
      answer({ name: (order.mutable ? raw : hash).toString('hex'), stored })
    })
  }
  if (order.do === 'get') {
    const name = Buffer.from(order.name, 'hex')
    const salt = Buffer.from(order.salt || '')
    const target = name.length === 20 ? name : crypto.createHash('sha1').update(Buffer.concat([name, salt])).digest()
    return dht.get(target, { verify, cache: false, ...salted(order) }, (error, found) => {
      answer(error ? { error: String(error) } : { value: found && Buffer.from(found.v).toString() })
    })
  }
  const key = Buffer.from(order.key, 'hex')
  if (order.do === 'announce') return dht.announce(key, order.port, (error) => answer(error ? { error: String(error) } : {}))
  if (order.do === 'peers') {
    const peers = new Set()
    const heard = (peer, hash) => { if (key.equals(Buffer.from(hash))) peers.add(`${peer.host}:${peer.port}`) }
    dht.on('peer', heard)
    return dht.lookup(key, () => {
      dht.off('peer', heard)
      answer({ peers: [...peers].sort() })
    })
  }
  answer({ error: `cannot ${order.do}` })
}

net.createServer((socket) => {
  let text = ''
  socket.on('error', () => {})
  socket.on('data', (data) => {
    text += data
    for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) {
      const order = JSON.parse(text.slice(0, end))
      let done = false
      act(nodes[order.node || 0], order, (answer) => {
        if (done) return
        done = true
        socket.write(JSON.stringify(answer) + '\n')
      })
    }
  })
}).listen(Number(control), '127.0.0.1')
