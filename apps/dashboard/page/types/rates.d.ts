/** The room's rates of the last minutes, as this page has seen them. What it has not seen is a gap, not a line. */
export type Rate = {
    at: number;
    red: number;
    blue: number;
    isGap: boolean;
};
/** @typedef {{ at: number, red: number, blue: number, isGap: boolean }} Rate `at`: Unix milliseconds, by our clock */
export declare const WINDOW_MS: number;
export declare class Rates {
    #private;
    /** Oldest first. @type {Rate[]} */
    points: Rate[];
    /** From now on. @param {{ red: number, blue: number }} rate */
    push({ red, blue }: {
        red: number;
        blue: number;
    }): void;
    /** From now on nothing is known. */
    gap(): void;
    /** Nothing but zeroes in sight. */
    get isFlat(): boolean;
    /** Keeps them for the tab's next visit to this room. @param {string} room */
    save(room: string): void;
    /** @param {string} room */
    load(room: string): void;
}
