// @platformatic/kafka, with the library's defaults but for what a verb names.
//
//   produce BOOTSTRAP topic= codec= file=                     each record of the file, acknowledged
//   consume BOOTSTRAP topic= partitions= from= [fetch_bytes=]   to the ends at the start
//   group BOOTSTRAP topic= group= [until= session_ms= strategy=cooperative instance= pause_ms=]
//   idempotent BOOTSTRAP topic= count=                        numbers through restarts of the broker
//   admin BOOTSTRAP topic=                                    every step
//   version BOOTSTRAP
//
// Left out: assignment by hand, which the library's streams do not have: consume is a group of one with offsets of its
// own. Range, which it has no assignor for.

import { setTimeout as sleep } from 'node:timers/promises'
import {
  Admin, ConfigResourceTypes, ConfigSources, Consumer, IncrementalAlterConfigOperationTypes,
  ListOffsetTimestamps, Producer, findErrorBy
} from '@platformatic/kafka'
import {
  Assignment, BATCH, Unsupported, base64, endOfInput, eventually, expect, main, print, printOffsets, records, requests,
  start, steps, versionOf
} from './contract.mjs'

function client(bootstrap) {
  return { clientId: 'highwater-interop', bootstrapBrokers: [bootstrap] }
}

async function produce(bootstrap, { topic, codec, file }) {
  const producer = new Producer(client(bootstrap))
  for (const request of requests(records(file))) {
    const messages = request.map(record => ({
      topic,
      partition: record.partition,
      key: record.key,
      value: record.value,
      // Names are bytes, so that a name may come twice.
      headers: new Map(record.headers.map(([name, value]) => [Buffer.from(name), value])),
      timestamp: record.timestamp === undefined ? undefined : BigInt(record.timestamp)
    }))
    const { offsets } = await producer.send({ messages, compression: codec })
    printOffsets(request, new Map(offsets.map(({ partition, offset }) => [partition, Number(offset)])))
  }
  await producer.close()
}

/** A record as the contract writes it. */
function shown(message) {
  return {
    partition: message.partition,
    offset: Number(message.offset),
    key: base64(message.key),
    value: base64(message.value),
    headers: message.headerEntries.map(([name, value]) => [name.toString(), base64(value)]),
    timestamp: Number(message.timestamp)
  }
}

async function consume(bootstrap, { topic, partitions, from, fetch_bytes }) {
  const groupId = `${topic}-reader-${process.pid}`
  const consumer = new Consumer({ ...client(bootstrap), groupId })
  const [begins, ends] = await offsetsBetween(consumer, topic, start(from))
  const left = new Map([...ends.entries()].filter(([partition, end]) => {
    return partition < partitions && begins[partition] >= 0 && begins[partition] < end
  }))
  const read = Array.from({ length: Number(partitions) }, () => [])
  if (left.size > 0) {
    await readAll(consumer, topic, begins, left, read, fetch_bytes)
  }
  await consumer.close(true)
  if (left.size > 0) await deleteGroup(bootstrap, groupId)
  read.flat().forEach(print)
}

/** By partition; a beginning that there is not is -1. */
async function offsetsBetween(consumer, topic, from) {
  const list = async timestamp => (await consumer.listOffsets({ topics: [topic], timestamp })).get(topic).map(Number)
  const ends = await list(ListOffsetTimestamps.LATEST)
  if (from.offset !== undefined) return [ends.map(() => from.offset), ends]
  return [await list(from.beginning ? ListOffsetTimestamps.EARLIEST : BigInt(from.time)), ends]
}

async function readAll(consumer, topic, begins, left, read, fetchBytes) {
  const offsets = begins.map((begin, partition) => ({ topic, partition, offset: BigInt(Math.max(begin, 0)) }))
  const limit = fetchBytes && { maxBytesPerPartition: Number(fetchBytes) }
  const stream = await consumer.consume({ topics: [topic], mode: 'manual', offsets, autocommit: false, ...limit })
  const unread = new Map(left)
  for await (const message of stream) {
    const { partition, offset } = message
    if (offset < (left.get(partition) ?? 0)) read[partition].push(shown(message))
    if (offset + 1n >= left.get(partition)) unread.delete(partition)
    if (unread.size === 0) break
  }
}

async function deleteGroup(bootstrap, groupId) {
  const admin = new Admin(client(bootstrap))
  await eventually(() => admin.deleteGroups({ groups: [groupId] }))
  await admin.close()
}

/** What a strategy is called, and how the library is told. */
function protocols(strategy) {
  if (strategy === undefined) return {}
  if (strategy !== 'cooperative') throw new Unsupported('@platformatic/kafka has round robin and cooperative-sticky')
  return { protocols: [{ name: 'cooperative-sticky', version: 3 }] }
}

async function group(bootstrap, { topic, group, until, session_ms = 6000, strategy, instance, pause_ms = 0 }) {
  const consumer = new Consumer({
    ...client(bootstrap),
    groupId: group,
    sessionTimeout: Number(session_ms),
    heartbeatInterval: Math.floor(session_ms / 3),
    ...protocols(strategy),
    ...(instance && { groupInstanceId: instance })
  })
  const failure = new Promise((_, reject) => consumer.on('error', reject))
  const assignment = new Assignment()
  const eager = strategy === undefined
  consumer.on('consumer:group:rebalance', () => eager && assignment.revoked())
  consumer.on('consumer:group:join', ({ assignments }) => {
    const partitions = (assignments ?? []).filter(part => part.topic === topic).flatMap(part => part.partitions)
    assignment.revoked(eager ? [] : partitions)
    assignment.assigned(partitions)
  })
  const stream = await consumer.consume({
    topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false
  })
  const member = { topic, left: Number(until ?? Infinity), pauseMs: Number(pause_ms) }
  await Promise.race([endOfInput(), failure, take(consumer, stream, member)])
  await consumer.close(true)
  assignment.revoked()
}

/** Reads and commits until the member has as many as it wants. */
async function take(consumer, stream, member) {
  let batch = []
  for await (const message of stream) {
    // Each time that it joins, the library begins again at what is committed, and still hands out what it had read.
    if (message.metadata.consumer.generationId === consumer.generationId) batch.push(message)
    if (batch.length < Math.min(BATCH, member.left) && stream.readableLength > 0) continue
    if (batch.length > 0) await handle(consumer, member, batch)
    batch = []
    if (member.left === 0) return
  }
}

async function handle(consumer, member, batch) {
  const next = new Map()
  for (const { partition, offset, value, leaderEpoch } of batch) {
    print({ partition, offset: Number(offset), value: base64(value) })
    next.set(partition, { topic: member.topic, partition, offset: offset + 1n, leaderEpoch })
  }
  await consumer.commit({ offsets: [...next.values()] })
  const committed = [...next.values()].map(({ partition, offset }) => [partition, Number(offset)])
  print({ committed: Object.fromEntries(committed) })
  member.left -= batch.length
  await sleep(member.pauseMs)
}

async function idempotent(bootstrap, { topic, count }) {
  // With idempotence come acks from all, one request at a time and retries without end.
  const producer = new Producer({ ...client(bootstrap), idempotent: true })
  const numbers = Array.from({ length: Number(count) }, (_, i) => i)
  for (let at = 0; at < numbers.length; at += BATCH) {
    const some = numbers.slice(at, at + BATCH)
    await producer.send({ messages: some.map(i => ({ topic, partition: 0, value: Buffer.from(String(i)) })) })
    for (const i of some) print({ acked: i })
  }
  await producer.close()
}

async function admin(bootstrap, { topic }) {
  const admin = new Admin(client(bootstrap))
  await steps({ ...topicSteps(admin, bootstrap, topic), ...groupSteps(admin, topic), ...endSteps(admin, topic) })
  await admin.close()
}

function topicSteps(admin, bootstrap, topic) {
  return {
    create: () => admin.createTopics({
      topics: [topic], partitions: 3, replicas: 1, configs: [{ name: 'max.message.bytes', value: '2000000' }]
    }),
    exists: async () => {
      const error = await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 }).catch(error => error)
      expect(findErrorBy(error, 'apiId', 'TOPIC_ALREADY_EXISTS'), `creating it again answers ${error}`)
    },
    list: () => eventually(async () => expect((await admin.listTopics()).includes(topic), 'it is not in the list')),
    describe: () => described(admin, topic, 3),
    describe_configs: () => configs(admin, topic, '2000000'),
    alter_configs: async () => {
      const { SET } = IncrementalAlterConfigOperationTypes
      const size = { name: 'max.message.bytes', configOperation: SET, value: '3000000' }
      const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic, configs: [size] }
      await admin.incrementalAlterConfigs({ resources: [resource] })
      await configs(admin, topic, '3000000')
    },
    create_partitions: async () => {
      await admin.createPartitions({ topics: [{ name: topic, count: 5, assignments: null }] })
      await described(admin, topic, 5)
    },
    produce: async () => {
      const producer = new Producer(client(bootstrap))
      const messages = Array.from({ length: 10 }, () => ({ topic, partition: 0, value: Buffer.from('tour') }))
      await producer.send({ messages })
      await producer.close()
    },
    list_offsets: () => offsets(admin, topic, 0, 10),
    delete_records: async () => {
      const partitions = [{ partition: 0, offset: 4n }]
      const [deleted] = await admin.deleteRecords({ topics: [{ name: topic, partitions }] })
      expect(deleted.partitions[0].lowWatermark === 4n, `the low watermark is ${deleted.partitions[0].lowWatermark}`)
      await offsets(admin, topic, 4, 10)
    }
  }
}

function groupSteps(admin, topic) {
  const group = `${topic}-group`
  const committed = async () => {
    const [{ topics }] = await admin.listConsumerGroupOffsets({ groups: [group] })
    const partitions = topics.find(({ name }) => name === topic)?.partitions ?? []
    return partitions.find(({ partitionIndex }) => partitionIndex === 0)?.committedOffset
  }
  return {
    commit: () => admin.alterConsumerGroupOffsets({
      groupId: group, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 7n }] }]
    }),
    list_groups: async () => expect((await admin.listGroups()).has(group), 'the group is not in the list'),
    describe_group: async () => {
      const { state, members } = (await admin.describeGroups({ groups: [group] })).get(group)
      expect(state === 'Empty' && members.size === 0, `the group is ${state} with ${members.size} members`)
    },
    list_group_offsets: async () => {
      const offset = await committed()
      expect(offset === 7n, `the committed offset is ${offset}, not 7`)
    },
    delete_group_offsets: async () => {
      await admin.deleteConsumerGroupOffsets({ groupId: group, topics: [{ name: topic, partitionIndexes: [0] }] })
      const offset = await committed()
      expect(offset === undefined || offset === -1n, `the committed offset ${offset} is still there`)
    },
    delete_group: async () => {
      await admin.deleteGroups({ groups: [group] })
      expect(!(await admin.listGroups()).has(group), 'the group is still in the list')
    }
  }
}

function endSteps(admin, topic) {
  return {
    describe_cluster: async () => {
      const { id, brokers } = await admin.metadata({ forceUpdate: true })
      expect(id && brokers.size === 1, `cluster ${id} has ${brokers.size} nodes`)
    },
    delete_topic: async () => {
      await admin.deleteTopics({ topics: [topic] })
      await eventually(async () => expect(!(await admin.listTopics()).includes(topic), 'it is still in the list'))
    }
  }
}

function described(admin, topic, count) {
  return eventually(async () => {
    const { topics, brokers } = await admin.metadata({ topics: [topic], forceUpdate: true })
    const { partitions } = topics.get(topic)
    expect(partitions.length === count, `${partitions.length} partitions, not ${count}`)
    expect(partitions.every(({ leader }) => brokers.has(leader)), 'a leader is not a live broker')
  })
}

function configs(admin, topic, size) {
  return eventually(async () => {
    const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic, configurationKeys: null }
    const [{ configs }] = await admin.describeConfigs({ resources: [resource] })
    const found = new Map(configs.map(({ name, value, configSource }) => [name, `${value} ${configSource}`]))
    const override = `${size} ${ConfigSources.DYNAMIC_TOPIC_CONFIG}`
    const standard = `${2 ** 30} ${ConfigSources.DEFAULT_CONFIG}`
    for (const [name, wanted] of [['max.message.bytes', override], ['segment.bytes', standard]]) {
      expect(found.get(name) === wanted, `${name} is ${found.get(name)}, not ${wanted}`)
    }
  })
}

async function offsets(admin, topic, earliest, latest) {
  const at = async timestamp => {
    const asked = { name: topic, partitions: [{ partitionIndex: 0, timestamp }] }
    const [{ partitions: [found] }] = await admin.listOffsets({ topics: [asked] })
    return Number(found.offset)
  }
  const [low, high] = [await at(ListOffsetTimestamps.EARLIEST), await at(ListOffsetTimestamps.LATEST)]
  expect(low === earliest && high === latest, `the offsets are ${low} to ${high}`)
}

function version() {
  print({ client: '@platformatic/kafka', version: versionOf('@platformatic/kafka') })
}

await main({ produce, consume, group, idempotent, admin, version })
