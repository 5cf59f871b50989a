/** Pairs of clicks: their arithmetic, and how they come over the network. */
export type Count = {
    red: number;
    blue: number;
};
export declare const zero: () => {
    red: number;
    blue: number;
};
/** @param {Count} a @param {Count} b */
export declare const larger: (a: Count, b: Count) => {
    red: number;
    blue: number;
};
/** @param {Count} a @param {Count} b */
export declare const minus: (a: Count, b: Count) => {
    red: number;
    blue: number;
};
/** @param {Count} a @param {Count} b */
export declare const plus: (a: Count, b: Count) => {
    red: number;
    blue: number;
};
/** @param {Count} a @param {Count} b */
export declare const covers: (a: Count, b: Count) => boolean;
/** @param {Count} a */
export declare const some: (a: Count) => boolean;
/** A count as it may come from the network. @param {any} value @returns {Count | undefined} */
export declare function readCount(value: any): Count | undefined;
