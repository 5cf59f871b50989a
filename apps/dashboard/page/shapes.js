// @ts-check
/** What `latchbus.js` gives and takes, for type checkers and readers. No code: a browser never loads it. */

/**
 * What each message has.
 * @typedef {object} Head
 * @property {string} topic
 * @property {string | Uint8Array} [raw] the payload as it was published, byte for byte: `publish(topic, raw)` publishes the same
 *   again. JSON as its text, with every digit, escape and space, which `value` does not have
 * @property {number} rev the hub's revision, strictly increasing within an epoch
 * @property {number} at Unix milliseconds, by the hub's clock
 * @property {boolean} [event] it is not kept
 * @property {number} [bytes] of the payload as published
 * @property {string} epoch the hub's life in which `rev` counts
 */
/**
 * A message; `cleared`: the topic has no value any more. `value` is JSON as a value, other text as a string, other bytes as a
 * `Uint8Array`.
 * @template [V=any] what the payload is
 * @typedef {Head & ({ cleared: false, value: V } | { cleared: true, value: undefined })} Message
 */
/**
 * A page of a history: the oldest message first. `more`: there are older ones, before the first one's `rev`. A message of a page whose
 * payload is JSON has no `raw`.
 * @template [V=any]
 * @typedef {{ messages: Message<V>[], more: boolean }} Page
 */
/**
 * @template T
 * @typedef {object} Observer
 * @property {(value: T) => void} [next]
 * @property {() => void} [synced] all that is retained has been delivered; what follows is live
 * @property {(missed: number) => void} [gap] events that were missed (mode `every`)
 * @property {(error: import('./latchbus.js').BusError) => void} [error]
 * @property {() => void} [complete]
 */
/**
 * @typedef {object} State
 * @property {'connecting' | 'live' | 'offline' | 'closed'} phase
 * @property {number} [retryAt] offline: when the next attempt starts, Unix milliseconds. Infinity: with `retry()`
 * @property {boolean} [signedOut] offline: the hub wants to know who this is, or does not let them stay. What brings them back is
 *   the caller's to do; meanwhile it is tried again
 * @property {string | undefined} [cause] offline: why a token was refused, or why there was none (`latchbus/token`)
 * @property {string} [user] live: who has signed in
 * @property {string} [epoch] live: the hub's epoch
 * @property {Record<string, number>} [limits] live: what the hub accepts
 * @property {number} [offset_ms] live: this clock minus the hub's, as of the welcome and with its time on the way
 * @property {number} [rtt_ms] live: round trip of the last ping
 * @property {number} [conflated] live: values that a newer one replaced before they came here
 * @property {number} [skipped] live: events that were gone before they came here
 */
/** @typedef {{ mode?: 'latest' | 'every' | 'state', maxRate?: number }} TopicOptions */
/** @typedef {{ rev: number, epoch: string }} Ack */
/** @typedef {{ WebSocket: typeof WebSocket, random: () => number }} Environment what `connect` uses, and how tests see through it */
/**
 * A publish that waits for its answer; with `send`, for the first connection.
 * @typedef {object} Publish
 * @property {(ack: Ack) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {() => void} [send]
 * @property {ReturnType<typeof setTimeout> | undefined} [timer]
 */

export {};
