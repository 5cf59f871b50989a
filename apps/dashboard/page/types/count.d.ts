/** Clicks of each colour: their arithmetic, and how they come over the network. */
export type Color = 'red' | 'blue';
export type Count = Record<Color, number>;
/** @typedef {'red' | 'blue'} Color */
/** @typedef {Record<Color, number>} Count */
/** All colours, in the order of the compact form. @type {Color[]} */
export declare const COLORS: Color[];
export declare const zero: () => Count;
/** @param {Count} a @param {Count} b */
export declare const larger: (a: Count, b: Count) => Count;
/** @param {Count} a @param {Count} b */
export declare const minus: (a: Count, b: Count) => Count;
/** @param {Count} a @param {Count} b */
export declare const plus: (a: Count, b: Count) => Count;
/** @param {Count} a @param {Count} b */
export declare const covers: (a: Count, b: Count) => boolean;
/** @param {Count} a */
export declare const some: (a: Count) => boolean;
/** @param {Count} a */
export declare const total: (a: Count) => number;
/** A count as it may come from the network. @param {any} value @returns {Count | undefined} */
export declare function readCount(value: any): Count | undefined;
