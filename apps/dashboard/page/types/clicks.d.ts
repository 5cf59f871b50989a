/**
 * This tab as a device of the bus: it owns cumulative counters, so that nothing that happens to a message
 * (lost, repeated, late) can change how many clicks there were.
 *
 * A browser is one device, `web-<8 hex>`. A tab takes an *incarnation* `<boot>-<nonce>` with its first click and
 * keeps it over reloads. Each incarnation is a record in localStorage, written before anything is sent, and only
 * the tab that holds it may raise it: two tabs that raised one counter would swallow each other's clicks. Records
 * that nobody holds and that the hub has not wholly confirmed are a closed tab's last words; the next tab says them.
 *
 * What the room's value contains: see `Counter.beyond`.
 */
import { Environment } from './tab.js';
export type Count = import('./count.js').Count;
export type Bus = import('./latchbus.js').Bus;
export type Message = import('./latchbus.js').Message;
export type Topic = import('./latchbus.js').Topic;
export type Hold = import('./tab.js').Hold;
export type Confirmation = {
    rev: number;
    count: Count;
    /**
     * from an earlier life of the page: what came on its topic meanwhile was not seen
     */
    isOld?: boolean;
};
export type Incarnation = {
    /**
     * `<boot>-<nonce>`
     */
    name: string;
    boot: number;
    topic: string;
    hold: Hold;
    /**
     * clicks made
     */
    count: Count;
    /**
     * in which the following counts were confirmed; in another one the hub may have lost them
     */
    epoch: string;
    /**
     * the largest count that the hub had
     */
    confirmed: Count;
    /**
     * the part of it that is in the room's value on display
     */
    included: Count;
    /**
     * confirmations that the value on display may not contain yet
     */
    recent: Confirmation[];
    /**
     * when the hub cleared its topic, as it does when it folds
     */
    clearedRev: number | undefined;
    /**
     * takes no clicks and sends no reports any more: it only waits for a value that contains it
     */
    isClosed: boolean;
    /**
     * on this connection
     */
    sent: Count | undefined;
};
/** The clicks of this tab in one room, and those that closed tabs of this browser left behind there. */
export declare class Counter {
    #private;
    /** The id of this browser. @type {string} */
    device: string;
    /** Why the hub refused the last report, if it did. @type {string | undefined} */
    refused: string | undefined;
    /**
     * @param {Bus} bus
     * @param {string} room
     * @param {Topic} messages the room's topics; `observe` and `synced` are called as they come
     * @param {() => void} changed called when a number of this counter changed
     * @param {Environment} [environment]
     */
    constructor(bus: Bus, room: string, messages: Topic, changed: () => void, environment?: Environment);
    /** The incarnation that takes this tab's clicks. Undefined until the first one. */
    get incarnation(): string | undefined;
    /** Clicks that the hub has not confirmed. */
    get pending(): import("./count.js").Count;
    /**
     * Own clicks that the room's value on display does not contain. The number to show is always
     *
     *     values + beyond
     *
     * Invariant: each own click is in exactly one of the two. `values` at revision v contains every report that the
     * hub took at a revision below v, and no later one. So a report moves from `beyond` into `values` when a value
     * with v above its revision is shown, neither when it is sent nor when it is acknowledged. Its revision is known
     * by then: the echo on the report's own topic comes before that value on the same subscription; if the echo was
     * conflated, a later report of ours took its place, and that one was sent after the acknowledgement of this one.
     * (Or a fold took its place while the acknowledgement was under way: then the click shows twice until that comes.)
     */
    get beyond(): import("./count.js").Count;
    /** Counts a click: stored first, then shown, then sent. @param {keyof Count} color */
    click(color: keyof Count): void;
    /** A live message of the room. @param {Message} message */
    observe(message: Message): void;
    /** A message of a snapshot: what was cleared leaves no other trace. @param {Message} message */
    observeCleared({ topic, cleared, rev }: Message): void;
    /**
     * The hub has said all it knows on this connection.
     * @param {Message | undefined} values the one on display, if there is one
     * @param {string} epoch
     */
    synced(values: Message | undefined, epoch: string): void;
    /** The tab goes away or into the browser's back/forward cache: others may take over. */
    suspend(): void;
    /** Back from the cache. */
    resume(): void;
    /** For good. */
    close(): void;
}
