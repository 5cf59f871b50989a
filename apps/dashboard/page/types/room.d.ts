/** One room as it is shown: the hub's values with this tab's own clicks, and the devices behind them. */
import { Counter } from './clicks.js';
import { HubClock } from './clock.js';
import { Rates } from './rates.js';
export type Count = import('./count.js').Count;
export type Message = import('./latchbus.js').Message;
export type Device = {
    name: string;
    /**
     * undefined: it does not say
     */
    presence: 'online' | 'offline' | undefined;
    count: Count;
    /**
     * of its count or presence, Unix milliseconds by the hub's clock
     */
    changedAt: number;
    trouble: Trouble | undefined;
};
export type Trouble = {
    /**
     * how many reports and presses
     */
    malformed: number;
    /**
     * when the last one came, Unix milliseconds by the hub's clock
     */
    at: number;
    /**
     * what was wrong with that one
     */
    reason: string;
};
export type Parts = {
    presence: Device['presence'];
    floor: number;
    base: Count;
    pressed: Count;
    /**
     * by `<boot>-<nonce>`
     */
    live: Map<string, Count>;
    /**
     * those whose topic is gone: folded, which the floor says, or removed
     */
    cleared: Set<string>;
    /**
     * from which count they count since a reset
     */
    zeros: Map<string, Count>;
    /**
     * not listed until it has a click
     */
    removed: boolean;
    changedAt: number;
    trouble: Trouble | undefined;
};
/** @param {string} name */
export declare function isRoomName(name: string): boolean;
export declare class Room {
    #private;
    /** False until the hub has spoken once: nothing is known, which is not the same as no clicks. */
    isKnown: boolean;
    /** @type {Count | undefined} clicks a second */
    rate: Count | undefined;
    rates: Rates;
    clock: HubClock;
    /** This tab's clicks. @type {Counter} */
    counter: Counter;
    /**
     * @param {import('./latchbus.js').Bus} bus
     * @param {string} name
     * @param {() => void} changed called after every change
     * @param {import('./tab.js').Environment} [environment] for tests
     */
    constructor(bus: import('./latchbus.js').Bus, name: string, changed: () => void, environment?: import('./tab.js').Environment);
    /** Says goodbye to the hub. Clicks that it has not confirmed are kept for the next visit. */
    close(): void;
    /** All that is retained has arrived on the present connection; false: what is shown is the last known state. */
    get isLive(): boolean;
    /** The score: what the hub says and what it can't know yet. */
    get values(): import("./count.js").Count;
    get deviceCount(): number;
    /** Reports of this room's devices that the hub could not read, since its start. */
    get malformed(): number;
    /** The first devices by name, this browser before all others. @param {number} limit @returns {Device[]} */
    devices(limit: number): Device[];
}
