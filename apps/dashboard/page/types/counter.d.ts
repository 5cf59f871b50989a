/**
 * Clicks in a room, counted exactly: none is lost or doubled by a cut, a reload, a restart of the hub.
 *
 *     import { connect } from 'latchbus';
 *     import { counter } from 'latchbus/counter';
 *     const clicks = counter('main', connect('ws://127.0.0.1:3000/ws'));
 *     clicks.subscribe(({ red, blue, pending }) => console.log(red, blue, pending.red + pending.blue));
 *     clicks.click('red');
 */
import { Latch } from './latchbus.js';
export type Count = import('./count.js').Count;
export type Bus = import('./latchbus.js').Bus;
export type Score = {
    /**
     * all clicks of the room, this page's own among them from the moment of the click
     */
    red: number;
    blue: number;
    /**
     * own clicks that the hub has not confirmed; they are kept over reloads and sent again
     */
    pending: Count;
    /**
     * the hub has spoken at least once; false: the numbers hold own clicks alone
     */
    isKnown: boolean;
    /**
     * the numbers are up to date; false: they are the last known ones
     */
    isLive: boolean;
};
/** @typedef {import('./count.js').Count} Count */
/** @typedef {import('./latchbus.js').Bus} Bus */
/**
 * @typedef {object} Score
 * @property {number} red all clicks of the room, this page's own among them from the moment of the click
 * @property {number} blue
 * @property {Count} pending own clicks that the hub has not confirmed; they are kept over reloads and sent again
 * @property {boolean} isKnown the hub has spoken at least once; false: the numbers hold own clicks alone
 * @property {boolean} isLive the numbers are up to date; false: they are the last known ones
 */
/** The score of a room as a store. Made by `counter`. @extends {Latch<Score>} */
export declare class ClickCounter extends Latch<Score> {
    #private;
    /** @param {Bus} bus @param {string} name @param {() => void} onEnd */
    constructor(bus: Bus, name: string, onEnd: () => void);
    /** Counts a click: kept in the browser, shown to subscribers, then sent. @param {keyof Count} color */
    click: (color: keyof Count) => void;
    /** Ends the store. Clicks that are not confirmed are sent by the next counter of this browser for the room. @override */
    close(): void;
}
/**
 * The clicks of a room. The same room on the same bus gives the same store.
 * @param {string} [room]
 * @param {Bus} [bus] a connection of its own to the page's host unless one is given
 * @throws {RangeError} the name can't be a room
 */
export declare function counter(room?: string, bus?: Bus): ClickCounter;
