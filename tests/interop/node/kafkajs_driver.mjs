// kafkajs, with the library's defaults but for what a verb names.
//
//   produce BOOTSTRAP topic= codec= file=                     each record of the file, acknowledged
//   consume BOOTSTRAP topic= partitions= from= [fetch_bytes=]   to the ends at the start
//   group BOOTSTRAP topic= group= [until= session_ms= pause_ms=]
//   idempotent BOOTSTRAP topic= count=                        numbers through restarts of the broker
//   admin BOOTSTRAP topic=                                    every step but delete_group_offsets
//   version BOOTSTRAP
//
// The library has gzip. As its manual says, other codecs are plugged in: kafkajs-snappy, lz4-napi for the kafkajs-lz4
// that compiles no longer, and Node's own zstd.
//
// Left out: headers that the library cannot send, a value that is null and names that return after another name, which
// an object of values by name has no place for; what it reads of them it shows by name. Assignment by hand, which it
// does not have: consume is a group of one that seeks. Range, cooperative and static membership.

import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import lz4 from 'lz4-napi'
import {
  Assignment, BATCH, Unsupported, base64, endOfInput, eventually, expect, main, print, printOffsets, records, requests,
  say, start, steps, versionOf
} from './contract.mjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners } = kafkajs

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer)
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: encoder => promisify(zlib.zstdCompress)(encoder.buffer),
  decompress: buffer => promisify(zlib.zstdDecompress)(buffer)
})

const STUCK = 'kafkajs asks again for ever if an answer holds empty batches alone (tulios/kafkajs#1072)'

/** So many answers in a row without a batch are not waited for: where there is nothing, the broker takes its time. */
const FRUITLESS_MAX = 50

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD
}

function kafka(bootstrap, settings = {}) {
  // The library's own log goes to stdout, which is for lines of JSON.
  const logCreator = () => ({ label, log }) => say(label, log.message, log.error ?? '')
  return new Kafka({ brokers: [bootstrap], logCreator, ...settings })
}

/** The default partitioner by its name: the library warns of a change of defaults until it is named. */
function producer(client, settings = {}) {
  return client.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...settings })
}

/** Headers as the library wants them: values by name. */
function headersByName(headers) {
  const byName = {}
  headers.forEach(([name, value], at) => {
    if (value === null) throw new Unsupported('kafkajs fails on a header whose value is null')
    if (name in byName && headers[at - 1][0] !== name) {
      throw new Unsupported('kafkajs takes headers as an object of names: other names cannot lie between equal ones')
    }
    byName[name] = name in byName ? [byName[name], value].flat() : value
  })
  return byName
}

async function produce(bootstrap, { topic, codec, file }) {
  const sender = producer(kafka(bootstrap))
  await sender.connect()
  const all = records(file).map(record => ({ ...record, headers: headersByName(record.headers) }))
  for (const request of requests(all)) {
    const messages = request.map(record => ({ ...record, timestamp: record.timestamp?.toString() }))
    const results = await sender.send({ topic, messages, compression: CODECS[codec] })
    printOffsets(request, new Map(results.map(result => [result.partition, Number(result.baseOffset)])))
  }
  await sender.disconnect()
}

/** A record as the contract writes it. */
function shown(partition, message) {
  const pairs = ([name, values]) => [values].flat().map(value => [name, base64(value)])
  return {
    partition,
    offset: Number(message.offset),
    key: base64(message.key),
    value: base64(message.value),
    headers: Object.entries(message.headers).flatMap(pairs),
    timestamp: Number(message.timestamp)
  }
}

async function consume(bootstrap, { topic, partitions, from, fetch_bytes }) {
  const client = kafka(bootstrap)
  const admin = client.admin()
  await admin.connect()
  const bounds = await offsetsBetween(admin, topic, start(from))
  const left = new Map(bounds.filter(({ partition, begin, end }) => partition < partitions && begin < end)
    .map(({ partition, end }) => [partition, end]))
  const read = Array.from({ length: Number(partitions) }, () => [])
  const groupId = `${topic}-reader-${process.pid}`
  if (left.size > 0) {
    const consumer = client.consumer({ groupId, ...(fetch_bytes && { maxBytesPerPartition: Number(fetch_bytes) }) })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await readAll(consumer, topic, bounds, left, read)
    await consumer.disconnect()
    await eventually(() => admin.deleteGroups([groupId]))
  }
  await admin.disconnect()
  read.flat().forEach(print)
}

async function offsetsBetween(admin, topic, from) {
  const offsets = await admin.fetchTopicOffsets(topic)
  const since = from.time === undefined ? [] : await admin.fetchTopicOffsetsByTimestamp(topic, from.time)
  const times = new Map(since.map(({ partition, offset }) => [partition, Number(offset)]))
  return offsets.map(({ partition, low, high }) => {
    const begin = from.beginning ? Number(low) : times.get(partition) ?? from.offset
    return { partition, begin, end: Number(high) }
  })
}

function readAll(consumer, topic, bounds, left, read) {
  return new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error))
    let fruitless = 0
    consumer.on(consumer.events.FETCH, () => {
      if (++fruitless === FRUITLESS_MAX) reject(new Unsupported(STUCK))
    })
    const eachBatch = async ({ batch }) => {
      fruitless = 0
      const end = left.get(batch.partition)
      for (const message of batch.messages) {
        if (Number(message.offset) < (end ?? 0)) read[batch.partition].push(shown(batch.partition, message))
      }
      // The last offset counts markers of transactions too.
      if (Number(batch.lastOffset()) + 1 >= end) left.delete(batch.partition)
      if (left.size === 0) resolve()
    }
    consumer.run({ autoCommit: false, eachBatch }).catch(reject)
    for (const { partition, begin } of bounds) consumer.seek({ topic, partition, offset: String(begin) })
  })
}

async function group(bootstrap, { topic, group, until, session_ms = 6000, strategy, instance, pause_ms = 0 }) {
  if (strategy) throw new Unsupported('kafkajs has a round robin assignor alone')
  if (instance) throw new Unsupported('kafkajs has no static membership')
  const heartbeatInterval = Math.floor(session_ms / 3)
  const consumer = kafka(bootstrap).consumer({
    groupId: group,
    sessionTimeout: Number(session_ms),
    heartbeatInterval,
    // The library sends no heartbeat while a fetch waits.
    maxWaitTimeInMs: heartbeatInterval
  })
  const assignment = new Assignment()
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    assignment.revoked()
    assignment.assigned(payload.memberAssignment[topic] ?? [])
  })
  consumer.on(consumer.events.REBALANCING, () => assignment.revoked())
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const member = { topic, left: Number(until ?? Infinity), pauseMs: Number(pause_ms) }
  await Promise.race([endOfInput(), take(consumer, member)])
  member.left = 0
  await consumer.disconnect()
  assignment.revoked()
}

/** Reads and commits until the member has as many as it wants. */
function take(consumer, member) {
  return new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error))
    const eachBatch = async payload => {
      const { messages } = payload.batch
      for (let at = 0; at < messages.length && member.left > 0; at += BATCH) {
        if (!payload.isRunning() || payload.isStale()) return
        await handle(consumer, member, payload, messages.slice(at, at + Math.min(BATCH, member.left)))
      }
      if (member.left === 0) resolve()
    }
    consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch }).catch(reject)
  })
}

async function handle(consumer, member, { batch, resolveOffset, heartbeat }, messages) {
  const { partition } = batch
  for (const { offset, value } of messages) print({ partition, offset: Number(offset), value: base64(value) })
  const next = Number(messages.at(-1).offset) + 1
  // What fails because the group moves on is for the library to deal with: it joins again, from what is committed.
  await consumer.commitOffsets([{ topic: member.topic, partition, offset: String(next) }])
  resolveOffset(messages.at(-1).offset)
  print({ committed: { [partition]: next } })
  member.left -= messages.length
  await sleep(member.pauseMs)
  await heartbeat()
}

async function idempotent(bootstrap, { topic, count }) {
  const retry = { retries: Number.MAX_SAFE_INTEGER, maxRetryTime: 1000 }
  const sender = producer(kafka(bootstrap, { retry }), { idempotent: true, maxInFlightRequests: 1, retry })
  await sender.connect()
  const numbers = Array.from({ length: Number(count) }, (_, i) => i)
  for (let at = 0; at < numbers.length; at += BATCH) {
    const some = numbers.slice(at, at + BATCH)
    await sender.send({ topic, messages: some.map(i => ({ partition: 0, value: String(i) })) })
    for (const i of some) print({ acked: i })
  }
  await sender.disconnect()
}

async function admin(bootstrap, { topic }) {
  const admin = kafka(bootstrap).admin()
  await admin.connect()
  await steps({ ...topicSteps(admin, bootstrap, topic), ...groupSteps(admin, topic), ...endSteps(admin, topic) })
  await admin.disconnect()
}

function topicSteps(admin, bootstrap, topic) {
  const numPartitions = 3
  return {
    create: async () => {
      const configEntries = [{ name: 'max.message.bytes', value: '2000000' }]
      expect(await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }] }), 'it was there before')
    },
    exists: async () => {
      // The library makes false of the error that the topic exists, and throws every other.
      expect(await admin.createTopics({ topics: [{ topic, numPartitions }] }) === false, 'it was created again')
    },
    list: () => eventually(async () => expect((await admin.listTopics()).includes(topic), 'it is not in the list')),
    describe: () => described(admin, topic, 3),
    describe_configs: () => configs(admin, topic, '2000000'),
    alter_configs: async () => {
      const configEntries = [{ name: 'max.message.bytes', value: '3000000' }]
      const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }]
      await admin.alterConfigs({ validateOnly: false, resources })
      await configs(admin, topic, '3000000')
    },
    create_partitions: async () => {
      await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
      await described(admin, topic, 5)
    },
    produce: async () => {
      const sender = producer(kafka(bootstrap))
      await sender.connect()
      const messages = Array.from({ length: 10 }, () => ({ partition: 0, value: 'tour' }))
      await sender.send({ topic, messages })
      await sender.disconnect()
    },
    list_offsets: () => offsets(admin, topic, 0, 10),
    delete_records: async () => {
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
      await offsets(admin, topic, 4, 10)
    }
  }
}

function groupSteps(admin, topic) {
  const groupId = `${topic}-group`
  const listed = async () => (await admin.listGroups()).groups.some(group => group.groupId === groupId)
  return {
    // The library commits as a member, and the member leaves.
    commit: () => admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] }),
    list_groups: async () => expect(await listed(), 'the group is not in the list'),
    describe_group: () => eventually(async () => {
      const { groups: [{ state, members }] } = await admin.describeGroups([groupId])
      expect(state === 'Empty' && members.length === 0, `the group is ${state} with ${members.length} members`)
    }),
    list_group_offsets: async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
      const committed = partitions.find(({ partition }) => partition === 0)?.offset
      expect(committed === '7', `the committed offset is ${committed}, not 7`)
    },
    delete_group_offsets: () => {
      throw new Unsupported('kafkajs has no OffsetDelete')
    },
    delete_group: async () => {
      await admin.deleteGroups([groupId])
      expect(!await listed(), 'the group is still in the list')
    }
  }
}

function endSteps(admin, topic) {
  return {
    describe_cluster: async () => {
      const { brokers, clusterId } = await admin.describeCluster()
      expect(clusterId && brokers.length === 1, `cluster ${clusterId} has ${brokers.length} nodes`)
    },
    delete_topic: async () => {
      await admin.deleteTopics({ topics: [topic] })
      await eventually(async () => expect(!(await admin.listTopics()).includes(topic), 'it is still in the list'))
    }
  }
}

function described(admin, topic, count) {
  return eventually(async () => {
    const { topics: [{ partitions }] } = await admin.fetchTopicMetadata({ topics: [topic] })
    const live = (await admin.describeCluster()).brokers.map(({ nodeId }) => nodeId)
    expect(partitions.length === count, `${partitions.length} partitions, not ${count}`)
    expect(partitions.every(({ leader }) => live.includes(leader)), 'a leader is not a live broker')
  })
}

function configs(admin, topic, size) {
  return eventually(async () => {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
    const { resources: [{ configEntries }] } = await admin.describeConfigs({ includeSynonyms: false, resources })
    const found = new Map(configEntries.map(entry => [entry.configName, `${entry.configValue} ${entry.configSource}`]))
    // 1 is a topic's own setting, 5 a default.
    for (const [name, wanted] of [['max.message.bytes', `${size} 1`], ['segment.bytes', `${2 ** 30} 5`]]) {
      expect(found.get(name) === wanted, `${name} is ${found.get(name)}, not ${wanted}`)
    }
  })
}

async function offsets(admin, topic, earliest, latest) {
  const { low, high } = (await admin.fetchTopicOffsets(topic)).find(({ partition }) => partition === 0)
  expect(low === `${earliest}` && high === `${latest}`, `the offsets are ${low} to ${high}`)
}

function version() {
  print({ client: 'kafkajs', version: versionOf('kafkajs') })
}

await main({ produce, consume, group, idempotent, admin, version })
