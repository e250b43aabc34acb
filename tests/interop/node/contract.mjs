// What the Node drivers share: arguments, the JSON lines that they print, how they end.
//
// A driver is started as `<driver> VERB BOOTSTRAP key=value...`. It prints JSON lines and ends with 0 if it did all
// that the verb says, with 1 and a sentence on stderr if not, with 3 if its library cannot do it on any broker.

import { readFileSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** How many records a member takes at once: so few that one which is killed has committed many times. */
export const BATCH = 500

/** A broker has this long to show what it has acknowledged. */
const PATIENCE_MS = 10_000

/** What a library cannot do on any broker, and why. */
export class Unsupported extends Error {}

/** Writes a line at once. */
export function print(line) {
  const bytes = Buffer.from(JSON.stringify(line) + '\n')
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(1, bytes, written)
    } catch (error) {
      // A pipe that is full, which Node may have made one that does not wait.
      if (error.code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}

/** Writes for people. */
export function say(...words) {
  process.stderr.write(words.join(' ') + '\n')
}

export function base64(bytes) {
  return bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('base64')
}

export function bytes(text) {
  return text === null || text === undefined ? null : Buffer.from(text, 'base64')
}

/** The records of a file, with bytes for base64. */
export function records(path) {
  const lines = readFileSync(path, 'utf8').split('\n').filter(line => line !== '')
  return lines.map(line => {
    const record = JSON.parse(line)
    const headers = (record.headers ?? []).map(([name, value]) => [name, bytes(value)])
    return { ...record, key: bytes(record.key), value: bytes(record.value), headers }
  })
}

/** Records in requests as an application would cut them: the libraries send what they are given in one batch. */
export function requests(records) {
  const cut = [[]]
  let size = 0
  for (const record of records) {
    const own = (record.key?.length ?? 0) + (record.value?.length ?? 0)
    if (cut.at(-1).length > 0 && (size + own > 512 * 1024 || cut.at(-1).length === BATCH)) {
      cut.push([])
      size = 0
    }
    cut.at(-1).push(record)
    size += own
  }
  return cut.filter(records => records.length > 0)
}

/** Offsets for the records of a request, from the first offset of each partition's batch. */
export function printOffsets(records, bases) {
  for (const { partition } of records) {
    const offset = bases.get(partition)
    if (offset === undefined) throw new Error(`no offset for partition ${partition}`)
    print({ partition, offset })
    bases.set(partition, offset + 1)
  }
}

/** Where to begin, from `beginning`, `offset:K` or `time:MS`. */
export function start(from) {
  const [kind, number] = from.split(':')
  if (kind === 'beginning') return { beginning: true }
  return kind === 'time' ? { time: Number(number) } : { offset: Number(number) }
}

/** Fails with the sentence if the condition does not hold. */
export function expect(condition, sentence) {
  if (!condition) throw new Error(sentence)
}

/** Repeats a check of what a broker has acknowledged but may not show yet. */
export async function eventually(check) {
  const deadline = Date.now() + PATIENCE_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > deadline) throw error
      await sleep(50)
    }
  }
}

/** Runs the steps of admin in order. The first that fails is the error. */
export async function steps(steps) {
  for (const [step, run] of Object.entries(steps)) {
    try {
      await run()
      print({ step, ok: true })
    } catch (error) {
      if (error instanceof Unsupported) {
        print({ step, unsupported: error.message })
      } else {
        throw new Error(`${step}: ${error.message}`, { cause: error })
      }
    }
  }
}

/** The version of a package that is installed. */
export function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), 'utf8')).version
}

/** Resolves when stdin ends. */
export function endOfInput() {
  return new Promise(resolve => process.stdin.on('end', resolve).on('error', resolve).resume())
}

/** The partitions that a member has, told as they change. */
export class Assignment {
  #owned = []

  /** What it has now, in full. */
  assigned(partitions) {
    this.#owned = partitions.toSorted((a, b) => a - b)
    print({ assigned: this.#owned })
  }

  /** What it had and has no longer; all of it if nothing is said. */
  revoked(kept = []) {
    const gone = this.#owned.filter(partition => !kept.includes(partition))
    this.#owned = this.#owned.filter(partition => kept.includes(partition))
    if (gone.length > 0) print({ revoked: gone })
  }
}

/** Runs the verb that the arguments of the process name. */
export async function main(verbs) {
  const [verb, bootstrap, ...rest] = process.argv.slice(2)
  try {
    expect(verb in verbs && bootstrap !== undefined, 'usage: VERB BOOTSTRAP key=value...')
    const pairs = rest.map(argument => {
      const at = argument.indexOf('=')
      return [argument.slice(0, at), argument.slice(at + 1)]
    })
    await verbs[verb](bootstrap, Object.fromEntries(pairs))
    process.exit(0)
  } catch (error) {
    if (error instanceof Unsupported) {
      print({ unsupported: error.message })
      process.exit(3)
    }
    const causes = [...(error.errors ?? []), error.cause].filter(Boolean)
    say(error.stack, ...causes.map(cause => `\ncaused by ${cause.message}`))
    process.exit(1)
  }
}
