// @ts-check
/** The server's HTTP API, for what has no topic. */

export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Asks the server; rejects with an `ApiError` when it refuses. @param {string} path @param {string} [method] @returns {Promise<any>} */
export async function api(path, method = 'GET') {
  const response = await fetch(path, { method });
  const answer = await response.json();
  if (!response.ok) throw new ApiError(response.status, answer?.error?.message ?? `status ${response.status}`);
  return answer;
}

/** @param {unknown} error */
export function problemOf(error) {
  return `That was not done: ${error instanceof Error ? error.message : error}.`;
}
