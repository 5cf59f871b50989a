/** The room's rates of the last minutes, as this page has seen them. What it has not seen is a gap, not a line. */
export type Count = import('./count.js').Count;
export type Rate = Count & {
    at: number;
    isGap: boolean;
};
/** @typedef {import('./count.js').Count} Count */
/** @typedef {Count & { at: number, isGap: boolean }} Rate `at`: Unix milliseconds, by our clock */
export declare const WINDOW_MS: number;
export declare class Rates {
    #private;
    /** Oldest first. @type {Rate[]} */
    points: Rate[];
    /** From now on. @param {Count} rate */
    push(rate: Count): void;
    /** From now on nothing is known. */
    gap(): void;
    /** Nothing but zeroes in sight. */
    get isFlat(): boolean;
    /** Keeps them for the tab's next visit to this room. @param {string} room */
    save(room: string): void;
    /** @param {string} room */
    load(room: string): void;
}
