/**
 * Signs in with tokens, where a browser can send no header: one with each connection, and the next before that ends. See `withToken`,
 * and README.md for an example.
 */
export type Environment = import('./shapes.js').Environment;
/**
 * For `connect(url, withToken(…))`. A token that the hub refuses is not tried again: the state says why (`cause`), and `bus.retry()`
 * asks for another. When `token` fails, it is asked again with the next attempt.
 * @param {() => string | Promise<string>} token gives a token that is valid now
 * @param {Partial<Environment>} [environment]
 * @returns {Pick<Environment, 'WebSocket'>}
 */
export declare function withToken(token: () => string | Promise<string>, { WebSocket }?: Partial<Environment>): Pick<Environment, 'WebSocket'>;
export type Claims = {
    sub?: string;
    exp?: number;
};
