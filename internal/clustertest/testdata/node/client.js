// Talks to a cluster with node-postgres; TestNodePostgres runs it. Where the
// cluster is, is in libpq's environment variables. Ends with status 0 when all
// was as it should be.
'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')

const encrypted = process.env.PGSSLROOTCERT
const settings = encrypted
  ? { ssl: { ca: fs.readFileSync(encrypted), rejectUnauthorized: true }, enableChannelBinding: true }
  : { ssl: false }

async function connect () {
  const client = new Client({ ...settings, connectionTimeoutMillis: 10000 })
  await client.connect()
  return client
}

// fails runs a promise that has to fail with a SQLSTATE.
async function fails (promise, code) {
  const err = await promise.then(() => null, (e) => e)
  assert.ok(err, `no error, expected ${code}`)
  assert.strictEqual(err.code, code, err.message)
  return err
}

// within waits until f is true.
async function within (ms, f) {
  for (const end = Date.now() + ms; !(await f());) {
    assert.ok(Date.now() < end, `not within ${ms} ms`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const tests = {
  async simple (client) {
    let res = await client.query('create table n (id int, name text, at timestamptz, amount numeric, big bigint, ok bool, raw bytea, doc jsonb, tags text[], ratio float8) distributed by (id)')
    assert.strictEqual(res.command, 'CREATE')
    res = await client.query("insert into n select i, 'n' || i, '2024-01-01 00:00:00+00'::timestamptz + i * interval '1 hour', i / 8.0, i * 10000000000, i % 2 = 0, decode('00ff', 'hex'), json_build_object('i', i), array['a', i::text], i / 4.0 from generate_series(1, 1000) i")
    assert.strictEqual(res.command, 'INSERT')
    assert.strictEqual(res.rowCount, 1000)
    // Several statements in one string.
    res = await client.query("select count(*)::int as n from n; update n set name = name || '!' where id <= 10; select max(id) as m from n")
    assert.deepStrictEqual(res.map((r) => [r.command, r.rowCount]), [['SELECT', 1], ['UPDATE', 10], ['SELECT', 1]])
    assert.strictEqual(res[0].rows[0].n, 1000)
    assert.strictEqual((await client.query('')).command, null)
  },

  async types (client) {
    const res = await client.query('select *, null::int as nothing, id::int2 as small, at::date as day from n where id = $1', [258])
    assert.deepStrictEqual(res.fields.map((f) => f.name), ['id', 'name', 'at', 'amount', 'big', 'ok', 'raw', 'doc', 'tags', 'ratio', 'nothing', 'small', 'day'])
    const [row] = res.rows
    assert.deepStrictEqual({ ...row, day: null }, {
      id: 258,
      name: 'n258',
      at: new Date('2024-01-11T18:00:00Z'),
      amount: '32.2500000000000000',
      big: '2580000000000',
      ok: true,
      raw: Buffer.from([0, 255]),
      doc: { i: 258 },
      tags: ['a', '258'],
      ratio: 64.5,
      nothing: null,
      small: 258,
      day: null
    })
    const arrays = await client.query({ text: 'select id, name from n where id in (1, 2) order by id', rowMode: 'array' })
    assert.deepStrictEqual(arrays.rows, [[1, 'n1!'], [2, 'n2!']])
    assert.deepStrictEqual((await client.query({ text: 'select id, ok from n where id = $1', values: [4], binary: true })).rows, [{ id: 4, ok: true }])
  },

  async parameters (client) {
    const nasty = 'it\'s \\ " é 漢字 \t\n'
    let res = await client.query('insert into n (id, name, raw, doc, tags, at, ok) values ($1, $2, $3, $4, $5, $6, $7), ($8, $9, null, null, null, null, null) returning id',
      [2001, nasty, Buffer.from([1, 2, 3]), { a: [1, null] }, ['x', 'y"z', ''], new Date(0), null, 2002, null])
    assert.deepStrictEqual(res.rows.map((r) => r.id).sort(), [2001, 2002])
    res = await client.query('select name, raw, doc, tags, at, ok from n where id = $1', [2001])
    assert.deepStrictEqual({ ...res.rows[0] }, { name: nasty, raw: Buffer.from([1, 2, 3]), doc: { a: [1, null] }, tags: ['x', 'y"z', ''], at: new Date(0), ok: null })
    assert.strictEqual((await client.query('select count(*)::int as n from n where id = any($1)', [[1, 2, 2001]])).rows[0].n, 3)
    assert.strictEqual((await client.query('delete from n where id > $1', [2000])).rowCount, 2)
    const large = 'x'.repeat(5 << 20)
    assert.strictEqual((await client.query('select length($1::text || max(name)) as l from n', [large])).rows[0].l, (5 << 20) + 4)
  },

  async prepared (client) {
    const query = { name: 'by id', text: 'select name from n where id = $1' }
    for (let i = 11; i < 60; i++) {
      assert.strictEqual((await client.query({ ...query, values: [i] })).rows[0].name, 'n' + i)
    }
    assert.strictEqual((await client.query("select count(*)::int as n from pg_prepared_statements where name = 'by id'")).rows[0].n, 1)
    await fails(client.query({ ...query, values: ['x'] }), '22P02')
    assert.strictEqual((await client.query({ ...query, values: ['7'] })).rows[0].name, 'n7!')
  },

  async transaction (client, other) {
    const count = async (c) => (await c.query('select count(*)::int as n from n')).rows[0].n
    await client.query('begin')
    await client.query('insert into n (id) select generate_series($1::int, $2::int)', [5001, 5100])
    assert.deepStrictEqual([await count(client), await count(other)], [1100, 1000])
    await client.query('savepoint s')
    await fails(client.query('select 1/0 from n'), '22012')
    await fails(client.query('select 1'), '25P02')
    await client.query('rollback to s')
    assert.strictEqual(await count(client), 1100)
    await client.query('commit')
    assert.strictEqual(await count(other), 1100)
    await client.query('begin isolation level repeatable read')
    await client.query('delete from n where id > 5000')
    await client.query('rollback')
    assert.strictEqual(await count(other), 1100)
    await client.query('delete from n where id > 5000')
  },

  async cursor (client) {
    let cursor = client.query(new Cursor('select id from n where id > $1 order by id', [10]))
    const first = await cursor.read(7)
    assert.deepStrictEqual(first.map((r) => r.id), [11, 12, 13, 14, 15, 16, 17])
    let n = first.length
    for (let rows; (rows = await cursor.read(100)).length > 0;) n += rows.length
    assert.strictEqual(n, 990)
    await cursor.close()
    // One that is closed before its end leaves nothing behind.
    cursor = client.query(new Cursor('select a.id from n a, n b'))
    assert.strictEqual((await cursor.read(10)).length, 10)
    await cursor.close()
    assert.strictEqual((await client.query('select count(*)::int as n from n')).rows[0].n, 1000)
  },

  async errors (client) {
    let err = await fails(client.query('select nothing from n'), '42703')
    assert.strictEqual(err.position, '8')
    assert.strictEqual(err.severity, 'ERROR')
    err = await fails(client.query('select * from nothing where id = $1', [1]), '42P01')
    await client.query('create table k (id int primary key, v int not null check (v > 0)) distributed by (id)')
    await client.query('insert into k values (1, 1)')
    err = await fails(client.query('insert into k values ($1, 2)', [1]), '23505')
    assert.strictEqual(err.constraint, 'k_pkey')
    assert.match(err.detail, /Key \(id\)=\(1\) already exists/)
    err = await fails(client.query('insert into k values (2, null)'), '23502')
    assert.deepStrictEqual([err.table, err.column], ['k', 'v'])
    await fails(client.query('insert into k values (2, -1)'), '23514')
    await fails(client.query("select 'x'::int from n"), '22P02')
    await fails(client.query('selec 1'), '42601')
    await fails(client.query('select $1::int', []), '42P02')
    await fails(client.query('select $1::int, $2::int', [1]), '08P01')
    const notices = []
    client.on('notice', (n) => notices.push(n.message))
    await client.query("do $$ begin raise notice 'said %', 1; end $$")
    assert.deepStrictEqual(notices, ['said 1'])
  },

  async notifications (client, other) {
    const heard = new Promise((resolve) => client.once('notification', resolve))
    await client.query('listen ch')
    await other.query("select pg_notify('ch', 'hello')")
    assert.strictEqual((await heard).payload, 'hello')
  },

  async cancelling (client, other) {
    const running = async (c) => (await other.query("select count(*)::int as n from pg_stat_activity where pid = $1 and state = 'active'", [c.processID])).rows[0].n
    for (const sql of ['select pg_sleep(30)', 'select pg_sleep(1) from n', 'select a.id, a.name from n a, n b, n c where a.id + b.id + c.id < 0']) {
      // By a request of its own.
      const query = fails(client.query(sql), '57014')
      await within(5000, async () => await running(client) === 1)
      await other.query('select pg_cancel_backend($1)', [client.processID])
      await query
    }
    // By the client's going away, while it is sent rows.
    const gone = await connect()
    gone.on('error', () => {})
    const pid = gone.processID
    const ended = gone.query('select a.id, a.name from n a, n b').then(() => null, (e) => e)
    await within(5000, async () => await running(gone) === 1)
    gone.connection.stream.destroy()
    assert.ok(await ended)
    await within(10000, async () => (await other.query('select count(*)::int as n from pg_stat_activity where pid = $1', [pid])).rows[0].n === 0)
  },

  async pool () {
    const pool = new Pool({ ...settings, max: 4 })
    try {
      const sums = await Promise.all(Array.from({ length: 40 }, (_, i) => pool.query('select sum(id)::int as s from n where id <= $1', [i + 1])))
      assert.deepStrictEqual(sums.map((r) => r.rows[0].s), Array.from({ length: 40 }, (_, i) => (i + 1) * (i + 2) / 2))
    } finally {
      await pool.end()
    }
  }
}

async function main () {
  const client = await connect()
  const other = await connect()
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test(client, other)
    } catch (err) {
      err.message = `${name}: ${err.message}`
      throw err
    }
    console.log(`${name}: as it should be`)
  }
  await client.end()
  await other.end()
}

// What hangs has to say so.
const limit = setTimeout(() => {
  console.error('not done within 60 s')
  process.exit(1)
}, 60000)

main().then(() => clearTimeout(limit), (err) => {
  console.error(err)
  process.exit(1)
})
