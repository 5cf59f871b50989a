/**
 * Latchbus for the browser: one module without dependencies. See `connect`, and README.md for examples.
 *
 * A lost connection is found, opened again and resumed where it was left. After the first one nothing is queued: `publish`
 * rejects, and the caller, who knows what is still worth saying, decides.
 */
import type * as shapes from './shapes.js';
export type Message<V = any> = shapes.Message<V>;
export type Observer<T> = shapes.Observer<T>;
export type State = shapes.State;
export type TopicOptions = shapes.TopicOptions;
export type Ack = shapes.Ack;
/** `code` is the hub's, or `disconnected`, `full` (too many in flight here), `closed`. */
export declare class BusError extends Error {
    code: string;
    /** @param {string} code @param {string} [message] */
    constructor(code: string, message?: string);
}
/** A store: keeps its last value and gives it to each new subscriber. For Svelte, RxJS and `for await`. @template T */
export declare class Latch<T> {
    #private;
    /** @type {T | undefined} */
    value: T | undefined;
    /** @param {T} [value] */
    constructor(value?: T);
    /**
     * Also where it is passed on by itself: `useSyncExternalStore(store.subscribe, store.snapshot)`.
     * @param {Observer<T> | ((value: T) => void)} observer
     * @returns {(() => void) & { unsubscribe(): void }}
     */
    subscribe: (observer: Observer<T> | ((value: T) => void)) => (() => void) & {
        unsubscribe(): void;
    };
    /** `value`, frozen with all that it holds: the same until there is a newer one. @returns {T | undefined} */
    snapshot: () => T | undefined;
    /** @protected @param {Observer<T>} observer */
    protected replay(observer: Observer<T>): void;
    /** @param {T} value */
    set(value: T): void;
    /** @protected @param {keyof Observer<T>} kind @param {any} [argument] */
    protected emit(kind: keyof Observer<T>, argument?: any): void;
    /** Ends every subscription. */
    close(): void;
    [Symbol.asyncIterator](): AsyncGenerator<Awaited<T>, void, unknown>;
    ['@@observable'](): this;
}
/**
 * The messages of one filter. `value` is the newest message, `last` the newest of each topic that has a value.
 * @template [V=any] what the payloads are
 * @extends {Latch<Message<V>>}
 */
export declare class Topic<V = any> extends Latch<Message<V>> {
    #private;
    /** @type {Map<string, Message<V>>} in revision order */
    last: Map<string, Message<V>>;
    /** `last` is up to date. */
    synced: boolean;
    /** @param {Bus} bus @param {number} id @param {string} filter @param {TopicOptions} options */
    constructor(bus: Bus, id: number, filter: string, { mode, maxRate }: TopicOptions);
    /** The messages of `last`, frozen: the same array until one of them changes. @returns {readonly Message<V>[]} */
    messages: () => readonly Message<V>[];
    request(): {
        op: string;
        id: number;
        filter: string;
        mode: "every" | "latest" | "state" | undefined;
        max_rate: number | undefined;
        since: string | undefined;
    };
    /** @param {any} frame @param {string} epoch @param {string} data the frame's text */
    handle(frame: any, epoch: string, data: string): void;
    /** @protected @override @param {Observer<Message<V>>} observer */
    protected replay(observer: Observer<Message<V>>): void;
    /** Ends the subscription at the hub, for all who share it. @override */
    close(): void;
}
/** Made by `connect`. */
export declare class Bus {
    #private;
    state: Latch<shapes.State>;
    /** Resolves with the first connection, rejects if the bus is closed before. @type {Promise<State>} */
    ready: Promise<State>;
    /** @param {string} url @param {shapes.Environment} environment */
    constructor(url: string, environment: shapes.Environment);
    /**
     * Listens at once; the same filter and options give the same store.
     * @template [V=any] what the payloads are, as in `topic<ClickValues>(…)`: it is not checked
     * @param {string} filter
     * @param {TopicOptions} [options]
     * @returns {Topic<V>}
     */
    topic: <V = any>(filter: string, options?: TopicOptions) => Topic<V>;
    /**
     * Publishes a string as text, bytes as bytes, anything else as JSON. Resolves when the hub has acknowledged it. Waits for
     * the first connection, 10 s at most. Rejects with a `BusError`; after `disconnected` it is unknown whether the hub took it.
     * @param {string} topic
     * @param {unknown} value
     * @param {{ retain?: boolean }} [options]
     * @returns {Promise<Ack>}
     */
    publish: (topic: string, value: unknown, { retain }?: {
        retain?: boolean;
    }) => Promise<Ack>;
    /**
     * What a topic retains, page by page, backwards: the last `limit` messages (50), or those before revision `before`. Waits and
     * rejects as `publish` does.
     * @template [V=any] what the payloads are
     * @param {string} topic
     * @param {{ before?: number | undefined, limit?: number | undefined }} [options]
     * @returns {Promise<shapes.Page<V>>} the oldest message first
     */
    history: <V = any>(topic: string, { before, limit }?: {
        before?: number | undefined;
        limit?: number | undefined;
    }) => Promise<shapes.Page<V>>;
    /** Who has signed in here, as the hub knows them. @returns {string | undefined} */
    get user(): string | undefined;
    /** Removes a topic's retained value. @param {string} topic */
    clear: (topic: string) => Promise<shapes.Ack>;
    /** Offline: tries now instead of at `retryAt`. */
    retry: () => void;
    /** Ends every subscription for good. */
    close(): void;
    /** For `Topic`. @param {number} id */
    forget(id: number): void;
}
/**
 * Opens the bus. Without a URL: `/ws` of the host that the page came from.
 * @param {string | URL} [url]
 * @param {Partial<shapes.Environment>} [environment]
 */
export declare function connect(url?: string | URL, environment?: Partial<shapes.Environment>): Bus;
