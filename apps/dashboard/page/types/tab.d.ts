/** What a counter needs of the browser: storage, randomness, the time, and names that one tab at a time can hold. */
export type Store = Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'>;
export type Hold = {
    readonly held: boolean;
    release: () => void;
};
/** What the counter needs of a browser; tests bring their own. */
export declare class Environment {
    #private;
    /** @type {Store} */ local: Store;
    /** @type {Store} */ session: Store;
    random32: () => number;
    now: () => number;
    /** The page was here before, in this tab, a moment ago. */
    isReload: boolean;
    /**
     * Holds a name that one tab at a time can hold. Null: somebody else has it, and still had it `wait_ms` later.
     * @param {string} name @param {number} wait_ms
     * @returns {Promise<Hold | null>}
     */
    hold(name: string, wait_ms: number): Promise<Hold | null>;
    /** Holds a name that nobody else can know yet, at once. @param {string} name @returns {Hold} */
    holdFresh(name: string): Hold;
}
/** @param {number} n */
export declare function hex(n: number): string;
